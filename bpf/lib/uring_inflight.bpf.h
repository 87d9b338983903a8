/* SPDX-License-Identifier: Apache-2.0
 * The io_uring requests in flight: how one is found again, and on which socket it is. */
#pragma once
#include "uring.bpf.h"

#ifndef DT_MAX_URING
#define DT_MAX_URING 16384     /* requests in flight on sockets: one or two per connection of a busy server; 340 B each */
#endif

/* struct io_kiocb -> the request. LRU: one that is forgotten is told from its completion alone. */
BPF_TABLE("lru_hash", __u64, struct dt_uring, URING, DT_MAX_URING);

/* Completions of a multishot request but the last do not name it. */
struct dt_shot {
	__u64 context;
	__u64 user_data;
};
/* -> struct io_kiocb; 0: two such requests at once */
BPF_TABLE("lru_hash", struct dt_shot, __u64, URING_SHOTS, DT_MAX_URING);

/* Indexed by CPU. Requests are submitted and complete in threads, with preemption off. */
BPF_TABLE("array", int, struct dt_uring_scratch, URING_SCRATCH, DT_MAX_CPUS);

static __always_inline struct dt_uring_scratch *dt_uring_scratch_take(void)
{
	int cpu = bpf_get_smp_processor_id();
	struct dt_uring_scratch *scratch = URING_SCRATCH.lookup(&cpu);

	if (scratch) {
		__builtin_memset(&scratch->uring, 0, sizeof(scratch->uring));
		scratch->copied = scratch->fault = 0;
	}
	return scratch;
}

/* One request came to this. All are counted here, when they end: none is ever in flight in the books. */
static __always_inline void dt_uring_count(int outcome)
{
	dt_count(DT_COUNT_URING_CALLS);
	dt_count(outcome);
}

/* Which socket the request is on. Returns 0 or the counter that says why it is not followed. */
static __always_inline int dt_uring_identify(struct dt_uring *uring, const struct dt_config *config, __u64 sk)
{
	struct dt_identity who = {};
	struct dt_socket_info *info;
	__u32 position = 0;

	dt_identify(&who, config, sk);
	if (!who.followed)
		return DT_COUNT_OTHER_SOCKET;
	uring->call.socket = sk;
	uring->call.tuple = who.tuple;
	uring->call.netns = who.netns;
	if (who.tuple.l4_protocol == DT_IPPROTO_TCP) {
		position = dt_stream_position(uring->call.direction, sk);
		/* Or the compiler makes one load of this and the next: of memory of two kinds, which the verifier refuses. */
		asm volatile("" : "+r"(position));
	} else if (who.tuple.family == DT_AF_UNIX) {
		info = SOCKETS.lookup(&sk);
		position = info ? info->passed[uring->call.direction == DT_EGRESS] : 0;
	}
	uring->call.seq_enter = position;
	return 0;
}

/* The process that made the request; 0 where this kernel does not say. */
static __always_inline __u32 dt_uring_owner(__u64 req)
{
	__u64 task = 0;

#ifdef DT_OFF_KIOCB_TASK
	task = dt_kernel_u64(req + DT_OFF_KIOCB_TASK);
#elif defined(DT_OFF_KIOCB_TCTX) && defined(DT_OFF_URING_TASK_TASK)
	task = dt_kernel_u64(dt_kernel_u64(req + DT_OFF_KIOCB_TCTX) + DT_OFF_URING_TASK_TASK);
#endif
	return task ? dt_kernel_u32(task + DT_OFF_TASK_TGID) : 0;
}

static __always_inline void dt_uring_shot_begin(__u64 req)
{
	struct dt_shot shot = {};
	__u64 value = req, *other;

	shot.context = dt_kernel_u64(req + DT_OFF_KIOCB_CTX);
	shot.user_data = dt_kernel_u64(req + DT_OFF_KIOCB_CQE + DT_OFF_CQE_USER_DATA);
	other = URING_SHOTS.lookup(&shot);
	if (other && *other != req && (!*other || URING.lookup(other)))
		value = 0;
	URING_SHOTS.update(&shot, &value);
}

static __always_inline void dt_uring_shot_end(__u64 req)
{
	struct dt_shot shot = {};

	shot.context = dt_kernel_u64(req + DT_OFF_KIOCB_CTX);
	shot.user_data = dt_kernel_u64(req + DT_OFF_KIOCB_CQE + DT_OFF_CQE_USER_DATA);
	URING_SHOTS.delete(&shot);
}

/* The file that a request names, before it has run and got hold of it: of the process, or one registered with the ring. */
static __always_inline __u64 dt_uring_file(__u64 req)
{
	__u32 number = dt_kernel_u32(req + DT_OFF_KIOCB_CQE + DT_OFF_CQE_FLAGS); /* cqe.fd, in the place of cqe.flags */
	__u64 ring = dt_kernel_u64(req + DT_OFF_KIOCB_CTX), file = 0;

	if (!(dt_kernel_u32(req + DT_OFF_KIOCB_FLAGS) & DT_SQE_FIXED_FILE))
		return dt_file_of(number);
#ifdef DT_OFF_RING_FILES
	file = dt_kernel_u64(dt_kernel_u64(ring + DT_OFF_RING_FILES) + 8 * (__u64)number);
#elif defined(DT_OFF_RING_NODES) && defined(DT_OFF_NODE_FILE)
	file = dt_kernel_u64(dt_kernel_u64(dt_kernel_u64(ring + DT_OFF_RING_NODES) + 8 * (__u64)number) + DT_OFF_NODE_FILE);
#endif
	return file & ~7ULL; /* its low bits are flags */
}
