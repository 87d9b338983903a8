/* SPDX-License-Identifier: Apache-2.0
 * Where in its stream a call's bytes stand, and whether the two readings around the call prove it. */
#pragma once
#include "call.bpf.h"

/* linux/socket.h; the same on every architecture */
#define DT_MSG_PEEK 0x2
#define DT_MSG_TRUNC 0x20
#define DT_MSG_ERRQUEUE 0x2000

#define DT_MAX_RESULT 0x7fffffff /* MAX_RW_COUNT is just below: no call moves more */

/* Whether the peer's FIN was processed. */
static __always_inline int dt_peer_has_ended(__u64 sk)
{
	__u8 state = 0;

	bpf_probe_read_kernel(&state, sizeof(state), (const void *)(sk + DT_OFF_SKC_STATE));
	return state != DT_TCP_ESTABLISHED && state != DT_TCP_FIN_WAIT1 && state != DT_TCP_FIN_WAIT2;
}

/* Set seq_exit and the flags of the call's position. bytes: all that the call moved; known: that number is certain. */
static __always_inline void dt_position_fill(struct dt_record *record, const struct dt_inflight *call, __u8 direction,
					     __u32 bytes, int known)
{
	__u32 advanced, expected = call->call_flags & DT_MSG_PEEK ? 0 : bytes;
	int proven;

	record->seq_enter = 0;
	record->seq_exit = 0;
	if (call->l4_protocol != DT_IPPROTO_TCP)
		return;
	record->seq_enter = call->seq_enter;
	record->seq_exit = dt_stream_position(direction, call->socket);
	advanced = record->seq_exit - record->seq_enter;
	proven = known && advanced == expected;
	/* A FIN takes a number of its own behind the bytes that were read. Without one it was another thread's byte. */
	if (known && direction == DT_INGRESS && advanced == expected + 1)
		proven = dt_peer_has_ended(call->socket);
	/* Fast open: the stream begins inside the call. */
	if (direction == DT_EGRESS && (call->tcp_state == DT_TCP_CLOSE || call->tcp_state == DT_TCP_SYN_SENT))
		proven = 0;
	record->flags |= DT_RECORD_SEQ_VALID;
	if (!proven)
		record->flags |= DT_RECORD_SEQ_AMBIGUOUS;
}
