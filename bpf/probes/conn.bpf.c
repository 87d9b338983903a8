/* SPDX-License-Identifier: Apache-2.0
 * The life of TCP connections: who opened them, when the peer ended, when and how they closed. Closing is taken from the
 * socket's state and not from close(2), which dup and fork make meaningless.
 *
 * socket(2) and close(2) emit nothing. They make the probes forget what an earlier socket at the same address left in
 * SOCKETS, which for TCP the change to CLOSE does and for datagram sockets nothing else. */
#include "../lib/call.bpf.h"
#include "../lib/emit.bpf.h"
#include "../lib/remember.bpf.h"

#define DT_EINPROGRESS 115     /* asm-generic/errno.h; x86, arm64, riscv, s390, powerpc */

/* Fill in and emit a connection record. common: the socket's, as of now; id: tgid and tid, 0 when no call is behind it. */
static __always_inline void dt_conn_emit(void *ctx, __u8 event, __u64 sk, const __u8 *common, __u64 id, __u64 enter_ns, int result)
{
	struct dt_record record = {};

	record.exit_ns = bpf_ktime_get_ns();
	record.enter_ns = enter_ns ? enter_ns : record.exit_ns;
	record.socket = sk;
	dt_tuple_fill(&record.tuple, common, sk, DT_IPPROTO_TCP);
	record.netns = dt_netns_of(common);
	record.tgid = id >> 32;
	record.tid = id;
	record.result = result;
	record.kind = DT_KIND_CONN;
	record.code = event;
	dt_count(DT_COUNT_CONN_EMITTED);
	dt_emit(ctx, &record, sizeof(record));
}

/* The followed socket behind a descriptor of a traced process; fills common. 0: none. */
static __always_inline __u64 dt_conn_socket(const struct dt_config *config, __u32 fd, __u8 *common, __u8 *l4_protocol)
{
	__u64 sk;

	if (!config || !dt_is_traced(config, bpf_get_current_pid_tgid() >> 32))
		return 0;
	sk = dt_socket_of(config, fd);
	if (!sk || dt_common_read(common, sk) < 0)
		return 0;
	*l4_protocol = dt_l4_of(common, sk);
	return *l4_protocol ? sk : 0;
}

/* A new socket: its address may have been another's before. */
int dt_exit_socket(struct tracepoint__syscalls__sys_exit_socket *args)
{
	__u8 common[DT_SOCK_COMMON] __attribute__((aligned(8)));
	__u8 l4_protocol = 0;
	__u64 sk;

	if (args->ret < 0)
		return 0;
	sk = dt_conn_socket(dt_armed(), args->ret, common, &l4_protocol);
	if (sk)
		SOCKETS.delete(&sk);
	return 0;
}

/* A datagram socket is forgotten when a descriptor of it closes; one that lives on through a duplicate is begun again. */
int dt_enter_close(struct tracepoint__syscalls__sys_enter_close *args)
{
	__u8 common[DT_SOCK_COMMON] __attribute__((aligned(8)));
	__u8 l4_protocol = 0;
	__u64 sk = dt_conn_socket(dt_armed(), args->fd, common, &l4_protocol);

	if (sk && l4_protocol == DT_IPPROTO_UDP)
		SOCKETS.delete(&sk);
	return 0;
}

int dt_enter_connect(struct tracepoint__syscalls__sys_enter_connect *args)
{
	__u8 common[DT_SOCK_COMMON] __attribute__((aligned(8)));
	struct dt_config *config = dt_armed();
	struct dt_connecting connecting_now = {};
	__u32 tid = bpf_get_current_pid_tgid();
	__u8 l4_protocol = 0;
	__u64 sk = dt_conn_socket(config, args->fd, common, &l4_protocol);

	if (!sk || l4_protocol != DT_IPPROTO_TCP)
		return 0;
	/* Remembered from here on: a connection that fails at once changes its state before the call returns. */
	if (dt_common_state(common) == DT_TCP_CLOSE)
		dt_socket_begin(config, sk, DT_SOCKET_FRESH);
	connecting_now.enter_ns = bpf_ktime_get_ns();
	connecting_now.socket = sk;
	if (connecting.update(&tid, &connecting_now) < 0)
		dt_count(DT_COUNT_SOCKET_FORGOTTEN);
	return 0;
}

int dt_exit_connect(struct tracepoint__syscalls__sys_exit_connect *args)
{
	__u8 common[DT_SOCK_COMMON] __attribute__((aligned(8)));
	__u64 id = bpf_get_current_pid_tgid();
	__u32 tid = id;
	struct dt_connecting *call = connecting.lookup(&tid);
	struct dt_socket_info *info;
	__u64 sk, enter_ns;

	if (!call)
		return 0;
	sk = call->socket;
	enter_ns = call->enter_ns;
	connecting.delete(&tid);
	if (dt_common_read(common, sk) < 0)
		return 0;
	if (dt_common_state(common) == DT_TCP_CLOSE) {
		SOCKETS.delete(&sk);
		return 0;
	}
	info = SOCKETS.lookup(&sk);
	if (!info || info->flags & DT_SOCKET_CONNECTED || (args->ret && args->ret != -DT_EINPROGRESS))
		return 0;
	info->flags |= DT_SOCKET_CONNECTED;
	dt_conn_emit(args, DT_CONN_CONNECT, sk, common, id, enter_ns, args->ret);
	return 0;
}

static __always_inline int dt_accepted(void *ctx, long fd)
{
	__u8 common[DT_SOCK_COMMON] __attribute__((aligned(8)));
	struct dt_config *config = dt_armed();
	__u8 l4_protocol = 0;
	__u64 sk;

	if (fd < 0)
		return 0;
	sk = dt_conn_socket(config, fd, common, &l4_protocol);
	/* Reset before it was accepted: it ended already, nobody would end it again. */
	if (!sk || l4_protocol != DT_IPPROTO_TCP || dt_common_state(common) == DT_TCP_CLOSE)
		return 0;
	dt_socket_begin(config, sk, DT_SOCKET_FRESH);
	dt_conn_emit(ctx, DT_CONN_ACCEPT, sk, common, bpf_get_current_pid_tgid(), 0, 0);
	return 0;
}

int dt_exit_accept(struct tracepoint__syscalls__sys_exit_accept *args)
{
	return dt_accepted(args, args->ret);
}

int dt_exit_accept4(struct tracepoint__syscalls__sys_exit_accept4 *args)
{
	return dt_accepted(args, args->ret);
}

/* A raw tracepoint: in a softirq the perf kind is skipped whenever it interrupts another probe. */
int dt_raw_inet_sock_set_state(struct bpf_raw_tracepoint_args *ctx)
{
	__u8 common[DT_SOCK_COMMON] __attribute__((aligned(8)));
	__u64 sk = ctx->args[0];
	int old_state = ctx->args[1], new_state = ctx->args[2], error = 0;
	__u8 event;

	if (new_state != DT_TCP_CLOSE_WAIT && new_state != DT_TCP_CLOSE)
		return 0;
	if (!SOCKETS.lookup(&sk))
		return 0;
	event = DT_CONN_PEER_CLOSED;
	if (new_state == DT_TCP_CLOSE) {
		SOCKETS.delete(&sk); /* also while nothing is armed: the address will be another's */
		event = DT_CONN_CLOSED;
		error = dt_kernel_u32(sk + DT_OFF_SK_ERR);
	}
	if (!dt_armed() || old_state == DT_TCP_LISTEN || dt_common_read(common, sk) < 0)
		return 0;
	common[DT_OFF_SKC_STATE] = new_state;
	dt_conn_emit(ctx, event, sk, common, 0, 0, -error);
	return 0;
}
