/* SPDX-License-Identifier: Apache-2.0
 * The exit side of a data call: what came of it, and its records. */
#pragma once
#include "vector.bpf.h"

/* Whether a call can have returned this: no more bytes than the buffer holds, no more messages than the vector. */
static __always_inline int dt_result_is_possible(const struct dt_inflight *call, __u8 shape, long result)
{
	if (result > DT_MAX_RESULT)
		return 0;
	if (shape == DT_SHAPE_MMSGHDR)
		return (__u64)result <= call->count;
	if (shape == DT_SHAPE_BUFFER && !(call->call_flags & DT_MSG_TRUNC))
		return (__u64)result <= call->count;
	return 1;
}

static __always_inline int dt_call_exit(void *ctx, __u8 syscall, __u8 direction, __u8 shape, long result)
{
	__u32 tid = bpf_get_current_pid_tgid();
	struct dt_moved moved = {};
	__u64 enter_ns;
	int zero = 0;

	moved.call = dt_inflight_find(direction, &tid);
	if (!moved.call || !moved.call->enter_ns)
		return 0;
	if (moved.call->syscall != syscall) {
		dt_inflight_abandon(moved.call);
		dt_count(DT_COUNT_ENTER_MISSED);
		return 0;
	}
	enter_ns = moved.call->enter_ns;
	moved.call->enter_ns = 0;
	/* The error queue hands out copies of sent packets, no bytes of the stream. */
	if (result <= 0 || moved.call->call_flags & DT_MSG_ERRQUEUE) {
		dt_count_call(DT_COUNT_NO_DATA, 1);
		return 0;
	}
	if (!dt_result_is_possible(moved.call, shape, result)) {
		dt_count_call(DT_COUNT_SYSCALL_PAYLOAD_LENGTH_INVALID, 1);
		return 0;
	}
	moved.scratch = dt_scratch_take();
	moved.config = CONFIG.lookup(&zero);
	if (!moved.scratch || !moved.config) {
		dt_count_call(DT_COUNT_MAP_GET_FAILED, 1);
		return 0;
	}
	moved.info = dt_socket_recall(moved.config, moved.call->socket, moved.call->l4_protocol);
	dt_record_fill(&moved.scratch->record, moved.call, enter_ns, direction);
	if (shape == DT_SHAPE_MMSGHDR) {
		moved.scratch->n_messages = result;
		dt_position_fill(&moved.scratch->record, moved.call, direction, dt_vector_bytes(moved.scratch, moved.call->buffer),
				 result <= DT_MAX_MESSAGES);
		dt_vector_emit(ctx, &moved, direction, result);
		return 0;
	}
	dt_position_fill(&moved.scratch->record, moved.call, direction, result, 1);
	dt_message_emit(ctx, &moved, direction, shape, moved.call->buffer, moved.call->count, result);
	return 0;
}
