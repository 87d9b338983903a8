/* SPDX-License-Identifier: Apache-2.0
 * What is remembered of a socket between calls: its head still to be captured whole, how much of it user space wants, and
 * that it was seen. */
#pragma once
#include "counters.bpf.h"
#include "filter.bpf.h"
#include "socket.bpf.h"

/* Hold a connection against the rules for ports. */
static __always_inline void dt_socket_judge(const struct dt_config *config, struct dt_socket_info *info,
					    const struct dt_quintuple *tuple)
{
	info->filter_epoch = config->filter_epoch;
	if (dt_port_verdict(config, tuple))
		info->flags &= ~DT_SOCKET_IGNORED;
	else
		info->flags |= DT_SOCKET_IGNORED;
}

/* Begin (again) to remember a socket; flags: DT_SOCKET_*. tuple: its ends, NULL: they are held against the rules later. */
static __always_inline void dt_socket_begin(const struct dt_config *config, __u64 sk, const struct dt_quintuple *tuple, __u32 flags)
{
	struct dt_socket_info info = {
		.head_left = { config->head_bytes, config->head_bytes },
		.payload_limit = DT_LIMIT_DEFAULT,
		.flags = flags,
	};

	if (tuple)
		dt_socket_judge(config, &info, tuple);
	LIMITS.delete(&sk);
	if (SOCKETS.update(&sk, &info) < 0)
		dt_count(DT_COUNT_SOCKET_FORGOTTEN);
}

/* Forget a socket: its address will be another's. */
static __always_inline void dt_socket_end(__u64 sk)
{
	SOCKETS.delete(&sk);
	LIMITS.delete(&sk);
}

/* Take over what user space wants of this connection, if it has said so. */
static __always_inline void dt_limit_read(struct dt_socket_info *info, __u64 sk, const struct dt_quintuple *tuple)
{
	struct dt_limit *limit = LIMITS.lookup(&sk);

	if (limit && limit->local_port == tuple->local_port && limit->peer_port == tuple->peer_port)
		info->payload_limit = limit->payload_limit;
}

/* What is remembered of a socket that moves bytes; begun if it is new. NULL: nothing can be remembered.
 * A TCP socket that is closed already (its last bytes are being read) is not taken up again: nobody would end it. */
static __always_inline struct dt_socket_info *dt_socket_recall(const struct dt_config *config, __u64 sk,
							       const struct dt_quintuple *tuple)
{
	struct dt_socket_info *info = SOCKETS.lookup(&sk);

	if (!info) {
		if (tuple->l4_protocol == DT_IPPROTO_TCP && dt_tcp_state(sk) == DT_TCP_CLOSE)
			return NULL;
		dt_socket_begin(config, sk, NULL, 0);
		info = SOCKETS.lookup(&sk);
		if (!info)
			return NULL;
	}
	if (info->filter_epoch != config->filter_epoch)
		dt_socket_judge(config, info, tuple);
	if (info->calls++ % DT_LIMIT_EVERY == 0)
		dt_limit_read(info, sk, tuple);
	return info;
}

/* Whether all is known already of the connection that this call is on. */
static __always_inline int dt_is_settled(struct dt_settled *settled, const struct dt_config *config, const struct dt_inflight *call)
{
	if (settled->socket != call->socket || settled->position != call->seq_enter || !settled->calls_left)
		return 0;
	settled->calls_left--;
	return settled->filter_epoch == config->filter_epoch && call->tuple.l4_protocol == DT_IPPROTO_TCP;
}

/* From now on the connection is settled for this thread, if nothing has to be looked up. The caller sets the position. */
static __always_inline void dt_settle(struct dt_settled *settled, const struct dt_config *config, const struct dt_inflight *call,
				      struct dt_socket_info *info, __u8 direction)
{
	__u32 seen = direction == DT_INGRESS ? DT_SOCKET_SEEN_INGRESS : DT_SOCKET_SEEN_EGRESS;

	settled->socket = 0;
	if (!info || info->head_left[direction == DT_EGRESS] || !(info->flags & seen) || info->flags & DT_SOCKET_IGNORED ||
	    info->payload_limit == DT_LIMIT_MUTE || call->tuple.l4_protocol != DT_IPPROTO_TCP)
		return;
	settled->socket = call->socket;
	settled->payload_limit = info->payload_limit;
	settled->filter_epoch = config->filter_epoch;
	settled->calls_left = DT_LIMIT_EVERY;
	info->calls = 0; /* it is looked up then */
}

/* A stream without sequence numbers: its bytes are counted as they pass, and that tells where they stand as long as one call
 * at a time moves them in a direction. */
static __always_inline void dt_stream_enter(struct dt_inflight *call, const struct dt_config *config, __u8 direction)
{
	struct dt_socket_info *info = dt_socket_recall(config, call->socket, &call->tuple);
	int side = direction == DT_EGRESS;

	if (!info)
		return;
	__sync_fetch_and_add(&info->in_call[side], 1);
	call->seq_enter = info->passed[side];
	if (info->in_call[side] != 1)
		call->flags |= DT_CALL_SHARED;
}

/* Such a call is over; after its bytes were counted, so that no other one finds itself alone with the old count. */
static __always_inline void dt_stream_leave(const struct dt_inflight *call, struct dt_socket_info *info)
{
	int side = call->direction == DT_EGRESS;

	if (info->in_call[side])
		__sync_fetch_and_add(&info->in_call[side], -1);
}

/* A call of any kind is over and moved nothing, as far as is known. */
static __always_inline void dt_call_over(const struct dt_inflight *call)
{
	__u64 sk = call->socket;
	struct dt_socket_info *info;

	if (call->tuple.family != DT_AF_UNIX || call->flags & DT_CALL_BLOCKED)
		return;
	info = SOCKETS.lookup(&sk);
	if (info)
		dt_stream_leave(call, info);
}

/* Such a call moved bytes; known: that is all of them. Returns 1 when another call's bytes may be between. */
static __always_inline int dt_stream_pass(const struct dt_inflight *call, struct dt_socket_info *info, __u32 bytes, int known)
{
	int side = call->direction == DT_EGRESS;
	__u32 lost = side ? DT_SOCKET_LOST_EGRESS : DT_SOCKET_LOST_INGRESS;
	int doubtful = call->flags & DT_CALL_SHARED || info->in_call[side] != 1 || info->flags & lost ||
		       info->passed[side] != call->seq_enter;

	__sync_fetch_and_add(&info->passed[side], bytes);
	if (known)
		return doubtful;
	info->flags |= lost;
	return 1;
}
