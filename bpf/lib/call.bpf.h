/* SPDX-License-Identifier: Apache-2.0
 * The enter side of a data call: whose it is, which socket it is on, and where that socket's stream stands. The walk is
 * made here and not at exit, where a descriptor that was closed and reused in between names another connection. */
#pragma once
#include "armed.bpf.h"
#include "log.bpf.h"
#include "payload.bpf.h"
#include "position.bpf.h"
#include "remember.bpf.h"
#include "socket.bpf.h"
#include "thread.bpf.h"

/* What a data call was given. */
struct dt_arguments {
	void *ctx;
	__u32 fd;
	__u32 call_flags;
	__u64 buffer;
	__u64 count;
	__u64 peer;
	__u64 peer_room;       /* sendto: bytes; recvfrom: where they stand */
};

/* A call whose exit was never seen is not in flight any more. */
static __always_inline void dt_call_abandon(struct dt_inflight *call)
{
	call->enter_ns = 0;
	dt_call_over(call);
	/* One that was put there by user space was not counted either. */
	if (!(call->flags & DT_CALL_BLOCKED))
		dt_count_call(DT_COUNT_INTERRUPTED, 1);
}

/* While nothing is armed: the loader's own sendto on a socket shows where sockets keep their file operations, which no
 * symbol table gives on every kernel. */
static __always_inline void dt_learn(__u32 fd)
{
	int zero = 0;
	struct dt_config *config = CONFIG.lookup(&zero);
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;

	if (config && !config->socket_fops && config->learn_tgid == tgid && config->learn_fd == fd)
		config->socket_fops = dt_kernel_u64(dt_file_of(fd) + DT_OFF_FILE_F_OP);
}

/* Note which socket the call is on. Returns 0 if it is none that is followed. */
static __always_inline int dt_call_name(struct dt_inflight *call, const struct dt_config *config, __u64 sk)
{
	struct dt_identity id;

	dt_identify(&id, config, sk);
	if (!id.followed)
		return 0;
	call->socket = sk;
	call->tuple = id.tuple;
	call->netns = id.netns;
	return 1;
}

/* How much of a peer's address a call that receives has room for: the kernel overwrites it with the address's own length. */
static __always_inline __u32 dt_peer_room(const struct dt_arguments *arguments, __u8 direction, __u8 shape)
{
	__u64 at = shape == DT_SHAPE_BUFFER ? arguments->peer_room
					    : arguments->buffer + __builtin_offsetof(struct dt_user_msghdr, name_length);
	__u32 room = 0;

	if (direction == DT_EGRESS)
		return arguments->peer_room;
	/* Of a vector's messages the first one's room counts for all. */
	if (shape != DT_SHAPE_BUFFER || arguments->peer)
		bpf_probe_read_user(&room, sizeof(room), (const void *)at);
	return room;
}

static __always_inline int dt_call_enter(__u8 syscall, __u8 direction, __u8 shape, const struct dt_arguments *arguments)
{
	struct dt_config *config = dt_armed();
	struct dt_thread *thread;
	struct dt_inflight *call;
	__u64 sk, now_ns;

	if (!config) {
		if (syscall == DT_SYSCALL_sendto)
			dt_learn(arguments->fd);
		return 0;
	}
	thread = dt_thread_traced(config, bpf_get_current_pid_tgid(), 1);
	if (!thread)
		return 0;
	call = &thread->call;
	dt_count_call(DT_COUNT_CALLS, 1);
	if (direction != DT_INGRESS && direction != DT_EGRESS) {
		dt_count_call(DT_COUNT_INVALID_DIRECTION, 1);
		return 0;
	}
	if (call->enter_ns) {
		dt_log(arguments->ctx, EXIT_MISSED, thread->tid, syscall, call->syscall);
		dt_call_abandon(call);
	}
	sk = dt_socket_of(config, arguments->fd);
	if (shape == DT_SHAPE_SPLICE && !sk) {
		sk = dt_socket_of(config, arguments->buffer);
		direction = DT_INGRESS;
	}
	if (!sk) {
		dt_count_call(DT_COUNT_NOT_SOCKET, 1);
		return 0;
	}
	/* Before the socket is looked at: the clock waits for every read that is under way. */
	now_ns = bpf_ktime_get_ns();
	if (dt_lapses(config, now_ns)) {
		dt_log(arguments->ctx, LAPSED, now_ns - config->deadline_ns, 0, 0);
		dt_count_call(DT_COUNT_INTERRUPTED, 1);
		return 0;
	}
	call->flags = 0;
	if (!dt_call_name(call, config, sk)) {
		dt_log(arguments->ctx, NOT_FOLLOWED, thread->tid, syscall, sk);
		dt_count_call(DT_COUNT_OTHER_SOCKET, 1);
		return 0;
	}
	if (call->tuple.l4_protocol == DT_IPPROTO_TCP)
		call->seq_enter = dt_stream_position(direction, sk);
	else if (call->tuple.family == DT_AF_UNIX)
		dt_stream_enter(call, config, direction);
	call->syscall = syscall;
	call->direction = direction;
	call->flags &= DT_CALL_SHARED;
	call->buffer = arguments->buffer;
	call->count = arguments->count;
	call->peer = arguments->peer;
	call->call_flags = arguments->call_flags;
	if (shape != DT_SHAPE_IOVEC && call->tuple.l4_protocol == DT_IPPROTO_UDP && (direction == DT_EGRESS || !call->tuple.peer_port))
		call->peer_room = dt_peer_room(arguments, direction, shape);
	call->enter_ns = now_ns;
	return 0;
}
