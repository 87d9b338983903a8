/* SPDX-License-Identifier: Apache-2.0
 * The record of an io_uring request that moved bytes. Its socket is that of its own file at completion, which it holds, so its
 * descriptor may be anything by then; its position is proven only if nothing else moved the stream between submission and
 * completion. */
#pragma once
#include "armed.bpf.h"
#include "uring_inflight.bpf.h"

/* Copy to the payload behind the first scratch->copied bytes. */
static __always_inline void dt_uring_copy(struct dt_uring_scratch *scratch, __u64 address, __u64 bytes)
{
	bytes = dt_bound(bytes, DT_MAX_PAYLOAD);
	if (!bytes)
		return;
	if (bpf_probe_read_user(scratch->payload + dt_bound(scratch->copied, DT_MAX_PAYLOAD), bytes, (const void *)address) < 0)
		scratch->fault = 1;
	else
		scratch->copied += bytes;
}

/* Copy the first `wanted` bytes that the request moved. */
static __always_inline void dt_uring_payload(struct dt_uring_scratch *scratch, __u64 wanted)
{
	struct dt_uring *uring = &scratch->uring;
	__u64 length;
	int i;

	if (uring->call.buffer)
		dt_uring_copy(scratch, uring->call.buffer, wanted < uring->call.count ? wanted : uring->call.count);
	for (i = 0; i < DT_MAX_IOVECS; i++) {
		if (i >= uring->n_segments || scratch->copied >= wanted || scratch->fault)
			break;
		length = wanted - scratch->copied;
		if (uring->segments[i].length < length)
			length = uring->segments[i].length;
		dt_uring_copy(scratch, uring->segments[i].base, length);
	}
}

/* The header of the record, but for what its payload decides. */
static __always_inline void dt_uring_record(struct dt_record *record, const struct dt_uring *uring, __u64 exit_ns, __u32 bytes)
{
	const struct dt_inflight *call = &uring->call;

	__builtin_memset(record, 0, sizeof(*record));
	record->enter_ns = call->enter_ns ? call->enter_ns : exit_ns;
	record->exit_ns = exit_ns;
	record->socket = call->socket;
	record->tuple = call->tuple;
	record->netns = call->netns;
	record->tgid = uring->tgid;
	record->tid = uring->tid;
	record->result = bytes;
	record->flags = DT_RECORD_URING | (call->flags & DT_CALL_BLOCKED ? DT_RECORD_ENTER_MISSED : 0);
	record->kind = DT_KIND_DATA;
	record->code = call->syscall;
	record->direction = call->direction;
	if (call->call_flags & DT_MSG_PEEK)
		record->flags |= DT_RECORD_PEEK;
	if (call->direction == DT_INGRESS && call->call_flags & DT_MSG_TRUNC && call->tuple.l4_protocol == DT_IPPROTO_TCP)
		record->flags |= DT_RECORD_TRUNCATED;
	if (call->tuple.l4_protocol == DT_IPPROTO_TCP)
		dt_position_fill(record, call, call->direction, bytes, 1);
}

/* Where a message stands in a stream without sequence numbers: certain if nothing else moved it since submission. */
static __always_inline void dt_uring_count_stream(struct dt_moved *moved, const struct dt_uring *uring, struct dt_record *record)
{
	struct dt_socket_info *info = moved->info;
	int side = uring->call.direction == DT_EGRESS;

	if (!info)
		return;
	moved->begin = info->passed[side];
	moved->doubtful = info->in_call[side] || moved->begin != uring->call.seq_enter;
	if (!(record->flags & DT_RECORD_PEEK))
		__sync_fetch_and_add(&info->passed[side], record->result);
	dt_position_count(record, moved, 0);
}

/* Emit what a request moved. */
static __always_inline void dt_uring_emit(void *ctx, struct dt_moved *moved, struct dt_uring_scratch *scratch, __u32 bytes)
{
	struct dt_uring *uring = &scratch->uring;
	struct dt_record *record = &scratch->record;
	__u64 wanted;

	dt_uring_record(record, uring, moved->exit_ns, bytes);
	wanted = dt_capture_limit(moved, record, uring->call.direction);
	if (record->tuple.family == DT_AF_UNIX)
		dt_uring_count_stream(moved, uring, record);
	/* Only in a thread of the process that made it do its addresses mean anything. */
	if (uring->tgid == bpf_get_current_pid_tgid() >> 32) {
		if (record->tuple.l4_protocol == DT_IPPROTO_UDP)
			dt_peer_read(&record->tuple, uring->call.peer, uring->call.peer_room);
		dt_uring_payload(scratch, wanted);
	}
	record->payload_len = scratch->copied;
	if (scratch->fault) {
		record->flags |= DT_RECORD_READ_FAULT;
		dt_count(DT_COUNT_READ_FAULT);
	}
	if (wanted && !scratch->copied)
		dt_count(DT_COUNT_URING_NO_PAYLOAD);
	if (scratch->copied < bytes)
		dt_count(DT_COUNT_PAYLOAD_CUT);
	dt_uring_count(DT_COUNT_DATA_EMITTED);
	dt_emit_event(ctx, record, sizeof(*record) + dt_bound(scratch->copied, DT_MAX_PAYLOAD));
}

/* The buffer that the kernel chose, if it can be told for certain; its length is not known. It stands in the request, in place of
 * what it was submitted with (6.1); on 6.12 and 6.18 only where the bytes of a multishot request went. */
static __always_inline void dt_uring_choose(struct dt_uring *uring, __u64 req, int result)
{
	__u64 asked = uring->call.buffer;

	uring->call.buffer = dt_uring_buffer(req, uring->call.syscall);
	uring->call.count = DT_MAX_RESULT;
#if defined(DT_OFF_KIOCB_ASYNC_DATA) && defined(DT_OFF_ASYNC_BUFFER) && defined(DT_OFF_ASYNC_DONE)
	if (uring->call.buffer == asked && uring->call.syscall == DT_SYSCALL_recvfrom && uring->is_multishot) {
		__u64 data = dt_kernel_u64(req + DT_OFF_KIOCB_ASYNC_DATA);

		if (data && dt_kernel_u64(data + DT_OFF_ASYNC_DONE) == result)
			uring->call.buffer = dt_kernel_u64(data + DT_OFF_ASYNC_BUFFER);
	}
#endif
	if (uring->call.buffer == asked || uring->call.call_flags & DT_MSG_TRUNC)
		uring->call.buffer = 0;
}

/* A request completed. Returns 0, or the counter of what came of it when that is no message. */
static __always_inline int dt_uring_finish(void *ctx, struct dt_config *config, struct dt_uring_scratch *scratch, __u64 req, __u64 sk,
					   int result)
{
	struct dt_uring *uring = &scratch->uring;
	struct dt_moved moved = { .config = config, .call = &uring->call };
	int why_not;

	if (!sk)
		return uring->call.socket ? DT_COUNT_NO_DATA : 0; /* 0: a registered file that is no socket */
	if (sk != uring->call.socket) {
		uring->call.flags = DT_CALL_BLOCKED; /* where its stream stood at submission is not known */
		if (dt_uring_identify(uring, config, sk))
			return DT_COUNT_OTHER_SOCKET;
	}
	result -= result > 0 ? uring->before : 0;
	if (result <= 0 || uring->call.call_flags & DT_MSG_ERRQUEUE)
		return DT_COUNT_NO_DATA;
	moved.exit_ns = bpf_ktime_get_ns();
	if (dt_lapses(config, moved.exit_ns))
		return DT_COUNT_INTERRUPTED;
	if (uring->is_selected)
		dt_uring_choose(uring, req, result);
	moved.info = dt_socket_recall(config, sk, &uring->call.tuple);
	why_not = dt_why_not(&moved, 1);
	if (why_not) {
		dt_count(DT_COUNT_URING_CALLS);
		dt_count_not(why_not, 1, result);
	} else {
		dt_uring_emit(ctx, &moved, scratch, result);
	}
	return 0;
}
