/* SPDX-License-Identifier: Apache-2.0
 * Makes and emits the record of one message of a data call: header, a prefix of its bytes, and how long that may be. */
#pragma once
#include "bucket.bpf.h"
#include "emit.bpf.h"
#include "payload.bpf.h"
#include "position.bpf.h"
#include "remember.bpf.h"

/* The part of a record that is the same for all messages of a call. */
static __always_inline void dt_record_fill(struct dt_record *record, const struct dt_moved *moved, __u64 enter_ns, __u8 direction)
{
	struct dt_inflight *call = moved->call;
	__u64 id = bpf_get_current_pid_tgid();

	record->enter_ns = enter_ns;
	record->exit_ns = moved->exit_ns;
	record->socket = call->socket;
	record->tuple = call->tuple;
	record->netns = call->netns;
	record->tgid = id >> 32;
	record->tid = id;
	record->seq_enter = 0;
	record->seq_exit = 0;
	record->parent_tgid = 0;
	record->flags = 0;
	record->cpu = bpf_get_smp_processor_id();
	record->kind = DT_KIND_DATA;
	record->code = call->syscall;
	record->direction = direction;
	record->message_index = 0;
	if (call->call_flags & DT_MSG_PEEK)
		record->flags |= DT_RECORD_PEEK;
	/* On a stream MSG_TRUNC throws the bytes away; on datagrams it only makes the result the full length. */
	if (direction == DT_INGRESS && call->call_flags & DT_MSG_TRUNC && call->tuple.l4_protocol == DT_IPPROTO_TCP)
		record->flags |= DT_RECORD_TRUNCATED;
	if (call->flags & DT_CALL_BLOCKED)
		record->flags |= DT_RECORD_ENTER_MISSED;
}

/* Bytes of this message to capture; marks the socket's first record and uses up its head. */
static __always_inline __u32 dt_capture_limit(const struct dt_moved *moved, struct dt_record *record, __u8 direction)
{
	__u32 seen = direction == DT_INGRESS ? DT_SOCKET_SEEN_INGRESS : DT_SOCKET_SEEN_EGRESS;
	struct dt_socket_info *info = moved->info;
	__u32 limit = moved->config->payload_bytes, bytes = record->result, head;

	if (moved->settled) {
		if (moved->settled->payload_limit != DT_LIMIT_DEFAULT)
			limit = moved->settled->payload_limit;
	} else if (info) {
		if (info->payload_limit != DT_LIMIT_DEFAULT)
			limit = info->payload_limit;
		head = info->head_left[direction == DT_EGRESS];
		if (head) {
			if (head > limit)
				limit = head;
			if (!(record->flags & DT_RECORD_PEEK))
				info->head_left[direction == DT_EGRESS] = head > bytes ? head - bytes : 0;
		}
		if (!(info->flags & seen)) {
			record->flags |= DT_RECORD_FIRST;
			if (info->flags & DT_SOCKET_FRESH)
				record->flags |= DT_RECORD_FRESH;
			if (!(record->flags & DT_RECORD_PEEK))
				info->flags |= seen;
		}
	}
	if (record->flags & DT_RECORD_TRUNCATED)
		return 0;
	if (limit > DT_MAX_PAYLOAD)
		limit = DT_MAX_PAYLOAD;
	return limit < bytes ? limit : bytes;
}

/* Where a message stands in a stream without sequence numbers. before: bytes of the call's earlier messages. */
static __always_inline void dt_position_count(struct dt_record *record, const struct dt_moved *moved, __u32 before)
{
	if (!moved->info)
		return;
	record->flags |= moved->doubtful ? DT_RECORD_COUNTED | DT_RECORD_SEQ_AMBIGUOUS : DT_RECORD_COUNTED;
	record->seq_enter = moved->begin + before;
	record->seq_exit = record->seq_enter + record->result;
}

/* Why so many messages of a call are not emitted: the counter that says so, or 0. */
static __always_inline int dt_why_not(const struct dt_moved *moved, __u32 messages)
{
	const struct dt_socket_info *info = moved->info;

	if (info && info->flags & DT_SOCKET_IGNORED)
		return DT_COUNT_PORT_FILTERED;
	if (info && info->payload_limit == DT_LIMIT_MUTE)
		return DT_COUNT_MUTED;
	if (!dt_bucket_allows(moved->config, moved->call->socket, moved->exit_ns, messages))
		return DT_COUNT_SHED;
	return 0;
}

static __always_inline void dt_count_not(int why, __u32 messages, __u64 bytes)
{
	if (why == DT_COUNT_PORT_FILTERED) {
		dt_count_call(DT_COUNT_PORT_FILTERED, messages);
	} else if (why == DT_COUNT_MUTED) {
		dt_count_call(DT_COUNT_MUTED, messages);
		dt_count_call(DT_COUNT_MUTED_BYTES, bytes);
	} else {
		dt_count_call(DT_COUNT_SHED, messages);
		dt_count_call(DT_COUNT_SHED_BYTES, bytes);
	}
}

/* Finish and emit the record that was begun at the end of the batch; shape, address and count say where its bytes are; before:
 * bytes of the call's earlier messages. */
static __always_inline void dt_message_emit(void *ctx, struct dt_moved *moved, __u8 direction, __u8 shape, __u64 address,
					    __u64 count, __u32 bytes, __u32 before)
{
	struct dt_record *record = dt_record_place(moved->batch);
	struct dt_scratch *scratch = moved->scratch;
	__u64 wanted, captured;

	record->result = bytes;
	wanted = dt_capture_limit(moved, record, direction);
	if (record->tuple.family == DT_AF_UNIX)
		dt_position_count(record, moved, before);
	if (shape == DT_SHAPE_BUFFER && wanted > count)
		wanted = count;
	scratch->wanted = wanted;
	dt_payload_read(scratch, moved->batch, shape, address, count);
	captured = dt_bound(scratch->copied, DT_MAX_PAYLOAD);
	record->payload_len = captured;
	if (scratch->fault) {
		record->flags |= DT_RECORD_READ_FAULT;
		dt_count_call(DT_COUNT_READ_FAULT, 1);
	}
	if (captured < bytes)
		dt_count_call(DT_COUNT_PAYLOAD_CUT, 1);
	dt_bucket_spend(moved->config, sizeof(*record) + captured);
	record->cpu_count = ++moved->batch->count;
	dt_batch_add(ctx, moved->config, moved->batch, captured);
}
