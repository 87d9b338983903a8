/* SPDX-License-Identifier: Apache-2.0
 * The exit side of a data call: what came of it, and its records. */
#pragma once
#include "call.bpf.h"
#include "vector.bpf.h"
#include "waited.bpf.h"

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

/* Whether the socket of a call has to be looked at again: it had no local port at enter (UDP before its first send, fast open). */
static __always_inline int dt_was_nameless(const struct dt_inflight *call)
{
	return !call->tuple.local_port && call->tuple.tcp_state == DT_TCP_CLOSE && call->tuple.family != DT_AF_UNIX;
}

/* Say what is remarkable about a record that was emitted. Not of vectors: the verifier would not follow the loop any more. */
static __always_inline void dt_record_log(void *ctx, const struct dt_record *record)
{
	if (record->flags & DT_RECORD_FIRST)
		dt_log(ctx, SOCKET_NEW, record->socket, record->code, record->flags);
	if (record->flags & DT_RECORD_READ_FAULT)
		dt_log(ctx, READ_FAULT, record->socket, record->payload_len, record->result);
	if (record->flags & DT_RECORD_SEQ_AMBIGUOUS)
		dt_log(ctx, POSITION_AMBIGUOUS, record->socket, record->seq_enter, record->seq_exit);
}

/* On a stream without sequence numbers: the call is over, and its bytes have passed. known: that is all of them. */
static __always_inline void dt_counted_pass(struct dt_moved *moved, __u32 bytes, int known)
{
	struct dt_inflight *call = moved->call;

	if (call->tuple.family != DT_AF_UNIX || !moved->info)
		return;
	if (call->flags & DT_CALL_BLOCKED) {
		call->seq_enter = moved->info->passed[call->direction == DT_EGRESS];
		call->flags |= DT_CALL_SHARED; /* nobody has counted it as under way */
	}
	moved->begin = call->seq_enter;
	moved->doubtful = dt_stream_pass(call, moved->info, call->call_flags & DT_MSG_PEEK ? 0 : bytes, known);
	if (!(call->flags & DT_CALL_BLOCKED))
		dt_stream_leave(call, moved->info);
}

/* Emit the one message of a call. Returns the position behind it in its stream. */
static __always_inline __u32 dt_moved_emit(void *ctx, struct dt_moved *moved, __u64 enter_ns, __u8 direction, __u8 shape, long result)
{
	struct dt_inflight *call = moved->call;
	struct dt_record *record;
	__u32 position = 0;
	int why_not;

	why_not = dt_why_not(moved, 1);
	if (why_not) {
		dt_log(ctx, NOT_EMITTED, call->socket, result, why_not);
		dt_count_not(why_not, 1, result);
		return 0;
	}
	record = dt_record_place(moved->batch);
	dt_record_fill(record, moved, enter_ns, direction);
	if (call->tuple.l4_protocol == DT_IPPROTO_TCP) {
		dt_position_fill(record, call, direction, result, 1);
		position = record->seq_exit;
	}
	if (shape == DT_SHAPE_MSGHDR) {
		dt_header_emit(ctx, moved, direction, result);
		dt_record_log(ctx, record);
		return position;
	}
	if (shape == DT_SHAPE_BUFFER && dt_names_peer(moved, direction))
		dt_peer_read(&record->tuple, call->peer, call->peer_room);
	dt_message_emit(ctx, moved, direction, shape, call->buffer, call->count, result, 0);
	dt_record_log(ctx, record);
	return position;
}

static __always_inline int dt_call_exit(void *ctx, __u8 syscall, __u8 direction, __u8 shape, long result)
{
	struct dt_thread *thread = dt_thread_find(bpf_get_current_pid_tgid());
	struct dt_moved moved = {};
	struct dt_settled *settled;
	struct dt_inflight *call;
	__u32 position;
	__u64 enter_ns, sk;
	int zero = 0, named;
	__u8 state;

	if (!thread || !thread->call.enter_ns)
		return 0;
	call = &thread->call;
	if (call->syscall != syscall) {
		dt_log(ctx, ENTER_MISSED, thread->tid, syscall, call->syscall);
		dt_call_abandon(call);
		dt_count_call(DT_COUNT_ENTER_MISSED, 1);
		return 0;
	}
	enter_ns = call->enter_ns;
	call->enter_ns = 0;
	/* Early: the clock waits for every read that is under way. */
	moved.exit_ns = result > 0 ? bpf_ktime_get_ns() : 0;
	moved.config = CONFIG.lookup(&zero);
	moved.scratch = dt_scratch_take();
	moved.batch = dt_batch_take();
	if (!moved.config || !moved.scratch || !moved.batch) {
		if (call->flags & DT_CALL_BLOCKED)
			dt_count_call(DT_COUNT_CALLS, 1);
		dt_log(ctx, NO_SCRATCH, bpf_get_smp_processor_id(), syscall, thread->tid);
		dt_count_call(DT_COUNT_MAP_GET_FAILED, 1);
		return 0;
	}
	if (shape == DT_SHAPE_SPLICE)
		direction = call->direction;
	/* One kind of pointer for the loop over messages: a thread's entry may lie in either of two maps. */
	if (shape == DT_SHAPE_MMSGHDR) {
		moved.scratch->call = *call;
		call = &moved.scratch->call;
	}
	sk = call->socket;
	named = 1;
	if (!dt_may_wait(direction, shape) && call->flags & DT_CALL_BLOCKED)
		return 0;
	if (call->flags & DT_CALL_BLOCKED) {
		if (!dt_armed() || !dt_thread_traced(moved.config, bpf_get_current_pid_tgid(), 0))
			return 0; /* user space does not know whether it is traced */
		sk = dt_call_adopt(call, moved.config);
		if (!sk) {
			dt_count_call(DT_COUNT_NOT_SOCKET, 1);
			return 0;
		}
		named = 0;
	} else if (result > 0 && dt_was_nameless(call)) {
		named = 0;
	}
	if (!named) {
		state = call->tuple.tcp_state;
		if (!dt_call_name(call, moved.config, sk) && call->flags & DT_CALL_BLOCKED) {
			dt_count_call(DT_COUNT_OTHER_SOCKET, 1);
			return 0;
		}
		if (!(call->flags & DT_CALL_BLOCKED))
			call->tuple.tcp_state = state;
	}
	/* The error queue hands out copies of sent packets, no bytes of the stream. */
	if (result <= 0 || call->call_flags & DT_MSG_ERRQUEUE) {
		dt_call_over(call);
		dt_count_call(DT_COUNT_NO_DATA, 1);
		return 0;
	}
	if (!dt_result_is_possible(call, shape, result)) {
		dt_log(ctx, RESULT_IMPOSSIBLE, syscall, call->socket, result);
		dt_count_call(DT_COUNT_SYSCALL_PAYLOAD_LENGTH_INVALID, 1);
		return 0;
	}
	moved.call = call;
	settled = &thread->settled[direction == DT_EGRESS];
	if (shape != DT_SHAPE_MMSGHDR && dt_is_settled(settled, moved.config, call)) {
		moved.settled = settled;
	} else {
		moved.info = dt_socket_recall(moved.config, call->socket, &call->tuple);
	}
	if (shape == DT_SHAPE_MMSGHDR) {
		dt_vector_measure(&moved, result);
		dt_counted_pass(&moved, moved.scratch->n_bytes, result <= DT_MAX_MESSAGES);
		dt_vector_emit(ctx, &moved, enter_ns, direction, result);
		return 0;
	}
	dt_counted_pass(&moved, result, 1);
	position = dt_moved_emit(ctx, &moved, enter_ns, direction, shape, result);
	if (!moved.settled)
		dt_settle(settled, moved.config, call, moved.info, direction);
	settled->position = position;
	return 0;
}
