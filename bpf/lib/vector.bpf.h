/* SPDX-License-Identifier: Apache-2.0
 * Messages that are passed by a header: one (sendmsg, recvmsg), or several (sendmmsg, recvmmsg), each of them a record of its
 * own. Reads at most DT_MAX_MESSAGES. */
#pragma once
#include "message.bpf.h"

/* Whether the peer stands in the call. What a connected socket reads comes from its own peer. */
static __always_inline int dt_names_peer(const struct dt_moved *moved, __u8 direction)
{
	const struct dt_quintuple *tuple = &moved->call->tuple;

	return tuple->l4_protocol == DT_IPPROTO_UDP && (direction == DT_EGRESS || !tuple->peer_port);
}

/* The message of sendmsg and recvmsg. The record was begun. */
static __always_inline void dt_header_emit(void *ctx, struct dt_moved *moved, __u8 direction, __u32 bytes)
{
	struct dt_record *record = dt_record_place(moved->batch);
	struct dt_user_msghdr header = {};

	if (bpf_probe_read_user(&header, sizeof(header), (const void *)moved->call->buffer) < 0) {
		/* The call itself read it: another thread has unmapped it since. */
		record->flags |= DT_RECORD_READ_FAULT;
		dt_count_call(DT_COUNT_READ_FAULT, 1);
	}
	if (dt_names_peer(moved, direction))
		dt_peer_read(&record->tuple, header.name, direction == DT_INGRESS ? moved->call->peer_room : header.name_length);
	dt_message_emit(ctx, moved, direction, DT_SHAPE_IOVEC, header.iovecs, header.n_iovecs, bytes, 0);
}

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

/* What is remembered of the socket is taken to scratch memory for the length of the loop: the verifier then meets one kind of
 * pointer there, not two, and follows half as much. */
static __always_inline void dt_memory_borrow(struct dt_moved *moved)
{
	__u64 sk = moved->call->socket;
	struct dt_socket_info *info = SOCKETS.lookup(&sk), *own = &moved->scratch->info;

	/* Field by field where nothing is known: a constant structure would need a section that BCC does not load. */
	own->head_left[0] = own->head_left[1] = 0;
	own->payload_limit = DT_LIMIT_DEFAULT;
	own->flags = DT_SOCKET_SEEN_INGRESS | DT_SOCKET_SEEN_EGRESS;
	if (info)
		*own = *info;
	moved->info = &moved->scratch->info;
}

static __always_inline void dt_memory_return(const struct dt_moved *moved)
{
	__u64 sk = moved->call->socket;
	struct dt_socket_info *info = SOCKETS.lookup(&sk);

	if (!info)
		return;
	info->head_left[0] = moved->scratch->info.head_left[0];
	info->head_left[1] = moved->scratch->info.head_left[1];
	info->flags |= moved->scratch->info.flags;
}

/* Emit message number i of a vector. The one that is counted elsewhere is not emitted. */
static __always_inline void dt_vector_message(void *ctx, struct dt_moved *moved, __u64 enter_ns, __u8 direction, __u32 i)
{
	struct dt_scratch *scratch = moved->scratch;
	struct dt_user_mmsghdr message;
	struct dt_record *record;

	if (bpf_probe_read_user(&message, sizeof(message), (const void *)(moved->call->buffer + i * sizeof(message))) < 0) {
		dt_count_call(DT_COUNT_READ_FAULT, 1);
		dt_count_call(DT_COUNT_MESSAGE_CUT, 1);
		return;
	}
	if (!message.length) {
		dt_count_call(DT_COUNT_NO_DATA, 1);
		return;
	}
	if (message.length > DT_MAX_RESULT) {
		dt_count_call(DT_COUNT_SYSCALL_PAYLOAD_LENGTH_INVALID, 1);
		return;
	}
	record = dt_record_place(moved->batch);
	dt_record_fill(record, moved, enter_ns, direction);
	record->message_index = i;
	if (record->tuple.l4_protocol == DT_IPPROTO_TCP) {
		dt_position_fill(record, moved->call, direction, scratch->n_bytes, scratch->n_messages <= DT_MAX_MESSAGES);
		record->seq_enter += scratch->before;
		record->seq_exit = record->seq_enter + message.length;
	} else if (dt_names_peer(moved, direction)) {
		dt_peer_read(&record->tuple, message.header.name,
			     direction == DT_INGRESS ? moved->call->peer_room : message.header.name_length);
	}
	dt_message_emit(ctx, moved, direction, DT_SHAPE_IOVEC, message.header.iovecs, message.header.n_iovecs, message.length,
			scratch->before);
	scratch->before += message.length;
}

/* Note how many messages a call moved, and on a stream how many bytes: only streams have positions. */
static __always_inline void dt_vector_measure(const struct dt_moved *moved, __u32 n)
{
	struct dt_scratch *scratch = moved->scratch;

	scratch->n_messages = n;
	scratch->n_bytes = moved->call->tuple.l4_protocol == DT_IPPROTO_UDP ? 0 : dt_vector_bytes(scratch, moved->call->buffer);
}

/* Emit the messages of recvmmsg and sendmmsg that were measured, each with its own position. */
static __always_inline void dt_vector_emit(void *ctx, struct dt_moved *moved, __u64 enter_ns, __u8 direction, __u32 n)
{
	struct dt_scratch *scratch = moved->scratch;
	int why_not = dt_why_not(moved, n);
	__u32 i;

	dt_count_call(DT_COUNT_EXTRA_MESSAGES, n - 1);
	if (why_not) {
		dt_count_not(why_not, n, scratch->n_bytes ? scratch->n_bytes : dt_vector_bytes(scratch, moved->call->buffer));
		return;
	}
	if (n > DT_MAX_MESSAGES) {
		dt_log(ctx, VECTOR_CUT, moved->call->socket, n, DT_MAX_MESSAGES);
		dt_count_call(DT_COUNT_MESSAGE_CUT, n - DT_MAX_MESSAGES);
	}
	scratch->before = 0;
	dt_memory_borrow(moved);
	for (i = 0; i < DT_MAX_MESSAGES; i++) {
		if (i >= scratch->n_messages)
			break;
		dt_vector_message(ctx, moved, enter_ns, direction, i);
	}
	dt_memory_return(moved);
}
