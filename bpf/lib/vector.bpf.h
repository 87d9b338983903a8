/* SPDX-License-Identifier: Apache-2.0
 * The messages of recvmmsg and sendmmsg: each one a record of its own. Reads at most DT_MAX_MESSAGES of them. */
#pragma once
#include "message.bpf.h"

/* Bytes of the first scratch->n_messages messages of a vector, DT_MAX_MESSAGES at most. */
static __always_inline __u32 dt_vector_bytes(const struct dt_scratch *scratch, __u64 vector)
{
	__u64 lengths = vector + __builtin_offsetof(struct dt_user_mmsghdr, length);
	__u32 bytes = 0, length, i;

	for (i = 0; i < DT_MAX_MESSAGES; i++) {
		length = 0;
		if (i >= scratch->n_messages)
			break;
		bpf_probe_read_user(&length, sizeof(length), (const void *)(lengths + i * sizeof(struct dt_user_mmsghdr)));
		bytes += length;
	}
	return bytes;
}

/* Emit the messages of recvmmsg and sendmmsg, each with its own position. */
static __always_inline void dt_vector_emit(void *ctx, struct dt_moved *moved, __u8 direction, __u32 n)
{
	struct dt_record *record = &moved->scratch->record;
	__u64 vector = moved->call->buffer;
	struct dt_user_mmsghdr message;
	__u32 begin, i;

	dt_count_call(DT_COUNT_EXTRA_MESSAGES, n - 1);
	if (n > DT_MAX_MESSAGES)
		dt_count_call(DT_COUNT_MESSAGE_CUT, n - DT_MAX_MESSAGES);
	begin = record->seq_enter;
	moved->scratch->before = 0;
	for (i = 0; i < DT_MAX_MESSAGES; i++) {
		if (i >= moved->scratch->n_messages)
			break;
		if (bpf_probe_read_user(&message, sizeof(message), (const void *)(vector + i * sizeof(message))) < 0) {
			dt_count_call(DT_COUNT_READ_FAULT, 1);
			dt_count_call(DT_COUNT_MESSAGE_CUT, 1);
			continue;
		}
		if (!message.length) {
			dt_count_call(DT_COUNT_NO_DATA, 1);
			continue;
		}
		if (message.length > DT_MAX_RESULT) {
			dt_count_call(DT_COUNT_SYSCALL_PAYLOAD_LENGTH_INVALID, 1);
			continue;
		}
		record->message_index = i;
		if (record->flags & DT_RECORD_SEQ_VALID) {
			record->seq_enter = begin + moved->scratch->before;
			record->seq_exit = record->seq_enter + message.length;
		}
		dt_message_emit(ctx, moved, direction, DT_SHAPE_IOVEC, message.header.iovecs, message.header.n_iovecs,
				message.length);
		moved->scratch->before += message.length;
	}
}
