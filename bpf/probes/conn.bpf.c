/* SPDX-License-Identifier: Apache-2.0
 * The life of connections: who opened them, when the peer ended, when and how they closed. Of TCP the end is taken from the
 * socket's state and not from close(2), which dup and fork make meaningless; of others from the close of the last reference.
 *
 * Nothing here follows descriptors: each data call finds its socket itself. So dup, dup2, dup3, close_range, passing by
 * SCM_RIGHTS and inheriting by fork need no hook, and a number that is used again names what it names at that call. */
#include "../lib/conn.bpf.h"

/* Whether other descriptors, or calls of other threads, hold the file too. */
static __always_inline int dt_file_is_shared(__u64 file)
{
#ifdef DT_OFF_FILE_COUNT
	return dt_kernel_u64(file + DT_OFF_FILE_COUNT) > 1;
#elif defined(DT_OFF_FILE_REF)
	return dt_kernel_u64(file + DT_OFF_FILE_REF) > 0; /* since 6.13 one less than the references */
#else
	return file == 0;
#endif
}

int dt_exit_socket(struct tracepoint__syscalls__sys_exit_socket *args)
{
	dt_socket_made(args->ret);
	return 0;
}

/* Datagram and unix sockets have no tracepoint of their end: they end when their last descriptor is closed. Those that
 * end otherwise (with their process, by dup2 or close_range) are forgotten when a new socket takes their address. */
int dt_enter_close(struct tracepoint__syscalls__sys_enter_close *args)
{
	struct dt_config *config = dt_conn_config();
	struct dt_socket_info *info;
	struct dt_identity who = {};
	__u64 file, sk;

	if (!config)
		return 0;
	file = dt_file_of(args->fd);
	sk = dt_socket_of_file(config, file);
	info = sk ? SOCKETS.lookup(&sk) : NULL;
	if (!info)
		return 0;
	dt_identify(&who, config, sk);
	if (who.tuple.l4_protocol == DT_IPPROTO_TCP || dt_file_is_shared(file))
		return 0;
	if (dt_is_unix(&who) && who.followed && !(info->flags & DT_SOCKET_IGNORED))
		dt_conn_emit(args, config, DT_CONN_CLOSED, sk, &who, 0, 0, 0);
	dt_socket_end(sk);
	return 0;
}

int dt_enter_connect(struct tracepoint__syscalls__sys_enter_connect *args)
{
	struct dt_config *config = dt_conn_config();
	struct dt_connecting connecting_now = {};
	__u32 tid = bpf_get_current_pid_tgid();
	__u64 sk;

	if (!config)
		return 0;
	sk = dt_socket_of(config, args->fd);
	if (!sk || !dt_connects(config, sk))
		return 0;
	connecting_now.enter_ns = bpf_ktime_get_ns();
	connecting_now.socket = sk;
	if (connecting.update(&tid, &connecting_now) < 0) {
		dt_log(args, NO_ROOM_CONNECT, tid, sk, 0);
		dt_count(DT_COUNT_SOCKET_FORGOTTEN);
	}
	return 0;
}

int dt_exit_connect(struct tracepoint__syscalls__sys_exit_connect *args)
{
	struct dt_config *config = dt_armed();
	__u32 tid = bpf_get_current_pid_tgid();
	struct dt_connecting *call = connecting.lookup(&tid);
	__u64 sk, enter_ns;

	if (!call)
		return 0;
	sk = call->socket;
	enter_ns = call->enter_ns;
	connecting.delete(&tid);
	if (config)
		dt_connected(args, config, sk, enter_ns, args->ret);
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

/* The two descriptors stand in user memory, whose address only the enter shows. */
int dt_enter_socketpair(struct tracepoint__syscalls__sys_enter_socketpair *args)
{
	struct dt_config *config = dt_conn_config();
	struct dt_connecting pair_now = {};
	__u32 tid = bpf_get_current_pid_tgid();

	if (!config || !config->unix_sockets)
		return 0;
	pair_now.socket = (__u64)args->usockvec;
	if (connecting.update(&tid, &pair_now) < 0)
		dt_count(DT_COUNT_SOCKET_FORGOTTEN);
	return 0;
}

int dt_exit_socketpair(struct tracepoint__syscalls__sys_exit_socketpair *args)
{
	struct dt_config *config = dt_armed();
	__u32 tid = bpf_get_current_pid_tgid();
	struct dt_connecting *call = connecting.lookup(&tid);
	struct dt_identity who = {};
	__u64 sk, address;
	int fds[2] = {};

	if (!call)
		return 0;
	address = call->socket;
	connecting.delete(&tid);
	if (!config || args->ret || bpf_probe_read_user(fds, sizeof(fds), (const void *)address) < 0)
		return 0;
	dt_conn_begin(config, fds[0], &sk, &who);
	dt_conn_begin(config, fds[1], &sk, &who);
	return 0;
}

/* A raw tracepoint: in a softirq the perf kind is skipped whenever it interrupts another probe. */
int dt_raw_inet_sock_set_state(struct bpf_raw_tracepoint_args *ctx)
{
	int old_state = ctx->args[1], new_state = ctx->args[2], error = 0;
	struct dt_config *config = dt_armed();
	struct dt_identity who = {};
	struct dt_socket_info *info;
	__u64 sk = ctx->args[0];
	__u8 event, is_ignored;

	if (new_state != DT_TCP_CLOSE_WAIT && new_state != DT_TCP_CLOSE)
		return 0;
	info = SOCKETS.lookup(&sk);
	if (!info)
		return 0;
	is_ignored = (info->flags & DT_SOCKET_IGNORED) != 0;
	event = DT_CONN_PEER_CLOSED;
	if (new_state == DT_TCP_CLOSE) {
		dt_socket_end(sk); /* also while nothing is armed: the address will be another's */
		event = DT_CONN_CLOSED;
		error = dt_kernel_u32(sk + DT_OFF_SK_ERR);
	}
	if (!config || is_ignored || old_state == DT_TCP_LISTEN)
		return 0;
	dt_identify(&who, config, sk);
	who.tuple.tcp_state = new_state;
	dt_log(ctx, SOCKET_ENDED, sk, old_state, new_state);
	dt_conn_emit(ctx, config, event, sk, &who, 0, 0, -error);
	return 0;
}
