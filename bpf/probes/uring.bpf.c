/* SPDX-License-Identifier: Apache-2.0
 * Bytes that processes move over sockets by io_uring. A request is remembered when it is submitted and told when it completes,
 * which may be in a worker thread of the process. What completed unseen (IOSQE_CQE_SKIP_SUCCESS) is found when the kernel uses
 * the request's memory again, and counted as interrupted. */
#include "../lib/conn.bpf.h"
#include "../lib/uring_moved.bpf.h"

/* Requests that make or connect sockets. Returns 1 if it was one that is to be remembered. */
static __always_inline int dt_uring_life_begins(const struct dt_config *config, struct dt_uring *uring, __u64 req)
{
	if (uring->opcode == DT_URING_ACCEPT)
		dt_uring_shot_begin(req); /* it may be a multishot request, which not every kernel shows */
	if (uring->opcode != DT_URING_CONNECT)
		return 0;
	uring->call.socket = dt_socket_of_file(config, dt_uring_file(req));
	return uring->call.socket && dt_connects(config, uring->call.socket);
}

/* One of them made a descriptor. */
static __always_inline void dt_uring_life_ends(void *ctx, struct dt_config *config, __u64 req, __u8 opcode, int result, __u32 flags)
{
	int is_registered = opcode == DT_URING_ACCEPT && dt_kernel_u32(req + DT_OFF_KIOCB_CMD + DT_OFF_ACCEPT_SLOT);

	if (opcode == DT_URING_ACCEPT && !(flags & DT_CQE_MORE))
		dt_uring_shot_end(req);
	if (!config || result < 0 || is_registered || dt_uring_owner(req) != bpf_get_current_pid_tgid() >> 32)
		return;
	if (opcode == DT_URING_ACCEPT)
		dt_accepted(ctx, result);
	else
		dt_socket_made(result);
}

/* Requests that move bytes. Returns 1 if it is to be remembered. */
static __always_inline int dt_uring_moves(const struct dt_config *config, struct dt_uring *uring, __u64 req)
{
	__u64 file = dt_uring_file(req), sk = dt_socket_of_file(config, file);

	/* Without a file (of a kernel whose table is not known): its own, at completion. */
	return !file || (sk && !dt_uring_identify(uring, config, sk));
}

/* io_uring_submit_req(req), before Linux 6.3 io_uring_submit_sqe(req, ...) */
int dt_raw_io_uring_submit_req(struct bpf_raw_tracepoint_args *ctx)
{
	struct dt_config *config = dt_armed();
	__u64 id = bpf_get_current_pid_tgid(), req = ctx->args[0];
	struct dt_uring *stale = URING.lookup(&req), *uring;
	struct dt_uring_scratch *scratch;

	if (stale) {
		if (stale->call.syscall)
			dt_uring_count(DT_COUNT_INTERRUPTED);
		URING.delete(&req);
	}
	if (!config || !dt_thread_traced(config, id, 0))
		return 0;
	scratch = dt_uring_scratch_take();
	if (!scratch)
		return 0;
	uring = &scratch->uring;
	if (!(dt_uring_read(uring, req, 1) ? dt_uring_moves(config, uring, req) : dt_uring_life_begins(config, uring, req)))
		return 0;
	uring->tgid = id >> 32;
	uring->tid = id;
	uring->call.enter_ns = bpf_ktime_get_ns();
	if (dt_lapses(config, uring->call.enter_ns))
		return 0;
	if (URING.update(&req, uring) < 0)
		dt_uring_count(DT_COUNT_MAP_INSERT_FAILED);
	else if (uring->is_multishot)
		dt_uring_shot_begin(req);
	return 0;
}

/* A request of which nothing is remembered: what it still shows, if it is one of the current process. */
static __always_inline int dt_uring_adopt(struct dt_uring *uring, const struct dt_config *config, __u64 req)
{
	__u64 id = bpf_get_current_pid_tgid();

	if (dt_uring_owner(req) != id >> 32 || !dt_thread_traced(config, id, 0) || !dt_uring_read(uring, req, 0))
		return 0;
	uring->tgid = id >> 32;
	uring->tid = id;
	uring->call.flags = DT_CALL_BLOCKED;
	return 1;
}

/* The request behind a completion; 0 if it cannot be told. Sets what came of it. */
static __always_inline __u64 dt_uring_completed(struct bpf_raw_tracepoint_args *ctx, int *result, __u32 *flags)
{
	struct dt_shot shot = {};
	__u64 req = ctx->args[1], *found;

	if (req) {
		*result = dt_kernel_u32(req + DT_OFF_KIOCB_CQE + DT_OFF_CQE_RES);
		*flags = dt_kernel_u32(req + DT_OFF_KIOCB_CQE + DT_OFF_CQE_FLAGS);
		return req;
	}
	shot.context = ctx->args[0];
#if DT_ARGS_URING_COMPLETE == 3
	/* 6.18: (context, req, struct io_uring_cqe *); user_data, res, flags */
	shot.user_data = dt_kernel_u64(ctx->args[2]);
	*result = dt_kernel_u32(ctx->args[2] + 8);
	*flags = dt_kernel_u32(ctx->args[2] + 12);
#else
	/* 6.1, 6.12: (context, req, user_data, res, flags, ...) */
	shot.user_data = ctx->args[2];
	*result = ctx->args[3];
	*flags = ctx->args[4];
#endif
	found = URING_SHOTS.lookup(&shot);
	if (found && !*found)
		dt_count(DT_COUNT_ENTER_MISSED);
	return found ? *found : 0;
}

/* A request that moves bytes completed. known: NULL if it was not remembered. */
static __always_inline void dt_uring_told(void *ctx, struct dt_config *config, struct dt_uring *known, __u64 req, __u64 sk, int result)
{
	struct dt_uring_scratch *scratch = dt_uring_scratch_take();
	int outcome;

	if (!scratch)
		return;
	if (known)
		scratch->uring = *known;
	else if (!dt_uring_adopt(&scratch->uring, config, req))
		return;
	outcome = config ? dt_uring_finish(ctx, config, scratch, req, sk, result) : DT_COUNT_INTERRUPTED;
	if (outcome)
		dt_uring_count(outcome);
}

/* io_uring_complete(context, req, ...): req is 0 for all completions of a multishot request but the last. */
int dt_raw_io_uring_complete(struct bpf_raw_tracepoint_args *ctx)
{
	struct dt_config *config = dt_armed();
	struct dt_uring *known;
	__u32 flags = 0;
	int result = 0;
	__u64 req = dt_uring_completed(ctx, &result, &flags), sk;
	__u8 opcode;

	if (!req)
		return 0;
	known = URING.lookup(&req);
	sk = config ? dt_socket_of_file(config, dt_kernel_u64(req + DT_OFF_KIOCB_FILE)) : 0;
	opcode = dt_uring_opcode(req);
	if (opcode == DT_URING_ACCEPT || opcode == DT_URING_SOCKET) {
		dt_uring_life_ends(ctx, config, req, opcode, result, flags);
		return 0;
	}
	if (!ctx->args[1] && !(known && known->is_multishot))
		return 0; /* it was another request's memory */
	if (known && !known->call.syscall && sk)
		dt_connected(ctx, config, sk, known->call.enter_ns, result);
	else if (known ? known->call.syscall : sk != 0)
		dt_uring_told(ctx, config, known, req, sk, result);
	if (!known)
		return 0;
	if (known->is_multishot && flags & DT_CQE_MORE) {
		/* The next one begins here. */
		known->call.enter_ns = bpf_ktime_get_ns();
		if (sk)
			dt_uring_identify(known, config, sk);
		return 0;
	}
	if (known->is_multishot)
		dt_uring_shot_end(req);
	URING.delete(&req);
	return 0;
}
