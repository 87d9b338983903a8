/* SPDX-License-Identifier: Apache-2.0
 * Where in its stream a call's bytes stand, and whether the two readings around the call prove it. */
#pragma once
#include "dt_records.h"
#include "socket.bpf.h"

/* linux/socket.h; the same on every architecture */
#define DT_MSG_PEEK 0x2
#define DT_MSG_TRUNC 0x20
#define DT_MSG_ERRQUEUE 0x2000

#define DT_MAX_RESULT 0x7fffffff /* MAX_RW_COUNT is just below: no call moves more */

/* Where the socket's stream stands: the next byte to be read or written. */
static __always_inline __u32 dt_stream_position(__u8 direction, __u64 sk)
{
	void *tcp = DT_TYPED(TCP_SOCK, sk);

	if (direction == DT_INGRESS)
		return DT_LOAD(__u32, tcp, DT_OFF_TCP_COPIED_SEQ);
	return DT_LOAD(__u32, tcp, DT_OFF_TCP_WRITE_SEQ);
}

/* Whether the number before `position` was the peer's FIN: it was processed, and nothing is behind it. */
static __always_inline int dt_is_fin_read(__u64 sk, __u32 position)
{
	__u8 state = dt_tcp_state(sk);

	if (state == DT_TCP_ESTABLISHED || state == DT_TCP_FIN_WAIT1 || state == DT_TCP_FIN_WAIT2)
		return 0;
	return position == DT_LOAD(__u32, DT_TYPED(TCP_SOCK, sk), DT_OFF_TCP_RCV_NXT);
}

/* Set seq_exit and the flags of the call's position on a TCP stream. bytes: all that the call moved; known: that number is
 * certain. */
static __always_inline void dt_position_fill(struct dt_record *record, const struct dt_inflight *call, __u8 direction,
					     __u32 bytes, int known)
{
	__u32 advanced, expected = call->call_flags & DT_MSG_PEEK ? 0 : bytes;
	int proven;

	record->seq_exit = dt_stream_position(direction, call->socket);
	record->flags |= DT_RECORD_SEQ_VALID;
	if (record->flags & DT_RECORD_ENTER_MISSED) {
		record->seq_enter = record->seq_exit - expected;
		record->flags |= DT_RECORD_SEQ_AMBIGUOUS;
		return;
	}
	record->seq_enter = call->seq_enter;
	advanced = record->seq_exit - record->seq_enter;
	proven = known && advanced == expected;
	/* A FIN takes a number of its own behind the bytes that were read. Without one it was another thread's byte. */
	if (known && direction == DT_INGRESS && advanced == expected + 1)
		proven = dt_is_fin_read(call->socket, record->seq_exit);
	/* Fast open: the stream begins inside the call. */
	if (direction == DT_EGRESS && (call->tuple.tcp_state == DT_TCP_CLOSE || call->tuple.tcp_state == DT_TCP_SYN_SENT))
		proven = 0;
	if (!proven)
		record->flags |= DT_RECORD_SEQ_AMBIGUOUS;
}
