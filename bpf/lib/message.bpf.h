/* SPDX-License-Identifier: Apache-2.0
 * Makes and emits the record of one message of a data call: header, a prefix of its bytes, and how long that may be. */
#pragma once
#include "emit.bpf.h"
#include "payload.bpf.h"
#include "position.bpf.h"
#include "remember.bpf.h"

/* All that the messages of one call share. */
struct dt_moved {
	struct dt_scratch *scratch;
	struct dt_inflight *call;
	struct dt_config *config;
	struct dt_socket_info *info; /* NULL: nothing is remembered of this socket */
};

/* The part of the record that is the same for all messages of a call. */
static __always_inline void dt_record_fill(struct dt_record *record, struct dt_inflight *call, __u64 enter_ns, __u8 direction)
{
	__u64 id = bpf_get_current_pid_tgid();

	record->enter_ns = enter_ns;
	record->exit_ns = bpf_ktime_get_ns();
	record->socket = call->socket;
	/* A socket without a local port at enter (UDP before its first send, fast open) has got one by now. */
	if (!*(__u16 *)(call->sock_common + DT_OFF_SKC_NUM) && call->tcp_state == DT_TCP_CLOSE)
		dt_common_read(call->sock_common, call->socket);
	dt_tuple_fill(&record->tuple, call->sock_common, call->socket, call->l4_protocol);
	record->tuple.tcp_state = call->tcp_state;
	record->netns = dt_netns_of(call->sock_common);
	record->tgid = id >> 32;
	record->tid = id;
	record->parent_tgid = 0;
	record->flags = 0;
	record->kind = DT_KIND_DATA;
	record->code = call->syscall;
	record->direction = direction;
	record->message_index = 0;
	if (call->call_flags & DT_MSG_PEEK)
		record->flags |= DT_RECORD_PEEK;
	/* On a stream MSG_TRUNC throws the bytes away; on datagrams it only makes the result the full length. */
	if (direction == DT_INGRESS && call->call_flags & DT_MSG_TRUNC && call->l4_protocol == DT_IPPROTO_TCP)
		record->flags |= DT_RECORD_TRUNCATED;
}

/* Bytes of this message to capture; marks the socket's first record and uses up its head. */
static __always_inline __u32 dt_capture_limit(struct dt_moved *moved, struct dt_record *record, __u8 direction)
{
	__u32 seen = direction == DT_INGRESS ? DT_SOCKET_SEEN_INGRESS : DT_SOCKET_SEEN_EGRESS;
	struct dt_socket_info *info = moved->info;
	__u32 limit = moved->config->payload_bytes, bytes = record->result, head;

	if (info) {
		if (info->payload_limit != DT_LIMIT_OF_CONFIG)
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

/* Emit one message; shape, address and count say where its bytes are. */
static __always_inline void dt_message_emit(void *ctx, struct dt_moved *moved, __u8 direction, __u8 shape, __u64 address,
					    __u64 count, __u32 bytes)
{
	struct dt_record *record = &moved->scratch->record;
	__u64 wanted, captured;

	record->result = bytes;
	wanted = dt_capture_limit(moved, record, direction);
	if (shape == DT_SHAPE_BUFFER && wanted > count)
		wanted = count;
	moved->scratch->wanted = wanted;
	dt_payload_read(moved->scratch, shape, address, count);
	captured = dt_bound(moved->scratch->copied, DT_MAX_PAYLOAD);
	record->payload_len = captured;
	if (moved->scratch->fault) {
		record->flags |= DT_RECORD_READ_FAULT;
		dt_count_call(DT_COUNT_READ_FAULT, 1);
	}
	if (captured < bytes)
		dt_count_call(DT_COUNT_PAYLOAD_CUT, 1);
	dt_count_call(DT_COUNT_DATA_EMITTED, 1);
	dt_emit(ctx, record, sizeof(*record) + captured);
	record->flags &= ~(DT_RECORD_READ_FAULT | DT_RECORD_FIRST | DT_RECORD_FRESH);
}
