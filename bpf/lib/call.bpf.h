/* SPDX-License-Identifier: Apache-2.0
 * The enter side of a data call: whose it is, which socket it is on, and where that socket's stream stands. The walk is
 * made here and not at exit, where a descriptor that was closed and reused in between names another connection. */
#pragma once
#include "counters.bpf.h"
#include "filter.bpf.h"
#include "socket.bpf.h"

static __always_inline struct dt_inflight *dt_inflight_find(__u8 direction, __u32 *tid)
{
	if (direction == DT_INGRESS)
		return ingress.lookup(tid);
	return egress.lookup(tid);
}

/* The entry of a thread that makes its first call; NULL when the map is full. */
static __always_inline struct dt_inflight *dt_inflight_make(__u8 direction, __u32 *tid)
{
	struct dt_inflight none = {};

	if (direction == DT_INGRESS)
		ingress.update(tid, &none);
	else
		egress.update(tid, &none);
	return dt_inflight_find(direction, tid);
}

/* Where the socket's stream stands: the next byte to be read or written. */
static __always_inline __u32 dt_stream_position(__u8 direction, __u64 sk)
{
	if (direction == DT_INGRESS)
		return dt_kernel_u32(sk + DT_OFF_TCP_COPIED_SEQ);
	return dt_kernel_u32(sk + DT_OFF_TCP_WRITE_SEQ);
}

/* A call whose exit was never seen is not in flight any more. */
static __always_inline void dt_inflight_abandon(struct dt_inflight *call)
{
	call->enter_ns = 0;
	dt_count(DT_COUNT_INTERRUPTED);
}

/* While nothing is armed: the loader's own sendto on a socket shows where sockets keep their file operations, which no
 * symbol table gives on every kernel. */
static __always_inline void dt_learn(__u32 fd)
{
	int zero = 0;
	struct dt_config *config = CONFIG.lookup(&zero);
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;

	if (config && config->learn_tgid == tgid && config->learn_fd == fd)
		config->socket_fops = dt_kernel_u64(dt_file_of(fd) + DT_OFF_FILE_F_OP);
}

/* Fill in the call; returns 0 when it is to be followed, else the counter that says why not. */
static __always_inline int dt_call_fill(struct dt_inflight *call, __u64 sk, __u8 direction)
{
	__u8 l4_protocol;

	if (dt_common_read(call->sock_common, sk) < 0)
		return DT_COUNT_NOT_SOCKET;
	l4_protocol = dt_l4_of(call->sock_common, sk);
	if (!l4_protocol)
		return DT_COUNT_OTHER_SOCKET;
	call->socket = sk;
	call->l4_protocol = l4_protocol;
	call->tcp_state = dt_common_state(call->sock_common);
	if (l4_protocol == DT_IPPROTO_TCP)
		call->seq_enter = dt_stream_position(direction, sk);
	return 0;
}

static __always_inline int dt_call_enter(__u8 syscall, __u8 direction, __u32 fd, __u64 buffer, __u64 count, __u32 call_flags)
{
	struct dt_config *config = dt_armed();
	__u64 id = bpf_get_current_pid_tgid();
	__u32 tid = id;
	struct dt_inflight *call;
	__u64 sk;
	int outcome;

	if (!config) {
		if (syscall == DT_SYSCALL_sendto)
			dt_learn(fd);
		return 0;
	}
	if (!dt_is_traced(config, id >> 32))
		return 0;
	dt_count_call(DT_COUNT_CALLS, 1);
	if (direction != DT_INGRESS && direction != DT_EGRESS) {
		dt_count(DT_COUNT_INVALID_DIRECTION);
		return 0;
	}
	call = dt_inflight_find(direction, &tid);
	if (call && call->enter_ns)
		dt_inflight_abandon(call);
	sk = dt_socket_of(config, fd);
	if (!sk) {
		dt_count_call(DT_COUNT_NOT_SOCKET, 1);
		return 0;
	}
	if (!call)
		call = dt_inflight_make(direction, &tid);
	if (!call) {
		dt_count(DT_COUNT_MAP_INSERT_FAILED);
		return 0;
	}
	outcome = dt_call_fill(call, sk, direction);
	if (outcome) {
		dt_count_call(outcome, 1);
		return 0;
	}
	call->syscall = syscall;
	call->buffer = buffer;
	call->count = count;
	call->call_flags = call_flags;
	call->enter_ns = bpf_ktime_get_ns();
	return 0;
}
