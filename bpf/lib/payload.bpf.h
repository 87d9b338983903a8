/* SPDX-License-Identifier: Apache-2.0
 * Copies the bytes of one message from user memory behind its record, in every shape in which a system call passes them,
 * and reads the peer's address that a call names. Reads at most DT_MAX_IOVECS segments and never more than the message's
 * own length. */
#pragma once
#include "alloc.bpf.h"
#include "emit.bpf.h"
#include "socket.bpf.h"

enum dt_shape {
	DT_SHAPE_BUFFER = 1,
	DT_SHAPE_IOVEC = 2,
	DT_SHAPE_MSGHDR = 3,
	DT_SHAPE_MMSGHDR = 4,
	DT_SHAPE_UNSEEN = 5,
	DT_SHAPE_SPLICE = 6,
};

/* linux/socket.h: struct user_msghdr and struct mmsghdr of 64-bit processes (32-bit ones do not reach the tracepoints). */
struct dt_user_msghdr {
	__u64 name;
	__u64 name_length; /* int, and padding */
	__u64 iovecs;
	__u64 n_iovecs;
	__u64 control;
	__u64 control_length;
	__u64 flags;
};
struct dt_user_mmsghdr {
	struct dt_user_msghdr header;
	__u32 length;
	__u32 pad;
};

/* The first 16 bytes of struct sockaddr_in and of struct sockaddr_in6, and the rest of the latter's address. */
struct dt_user_sockaddr {
	__u16 family;
	__u16 port_be;
	__u32 v4;              /* sockaddr_in6: flowinfo */
	__u64 v6_first;
};

/* All that the messages of one call share. */
struct dt_moved {
	struct dt_scratch *scratch;
	struct dt_batch *batch;
	struct dt_inflight *call;
	struct dt_config *config;
	struct dt_socket_info *info; /* NULL: nothing is remembered of this socket, or it is settled */
	struct dt_settled *settled; /* NULL: it is not, info says more */
	__u64 exit_ns;
	__u32 begin;           /* position of the call's first byte on a stream without sequence numbers */
	__u32 doubtful;        /* 1: that position is not certain */
};

/* Where the next record of this CPU is built. */
static __always_inline struct dt_record *dt_record_place(struct dt_batch *batch)
{
	return (struct dt_record *)(batch->bytes + dt_bound(batch->used, DT_BATCH_BYTES));
}

/* Copy to the payload of the record that is being built, behind the first `offset` bytes. Returns bytes copied, all or none. */
static __always_inline __u64 dt_payload_copy(struct dt_batch *batch, __u64 offset, __u64 address, __u64 bytes)
{
	__u8 *to = (__u8 *)dt_record_place(batch) + sizeof(struct dt_record);

	bytes = dt_bound(bytes, DT_MAX_PAYLOAD);
	if (!bytes || bpf_probe_read_user(to + dt_bound(offset, DT_MAX_PAYLOAD), bytes, (const void *)address) < 0)
		return 0;
	return bytes;
}

/* Copy the first scratch->wanted bytes of a vector, segments in order. Sets scratch->copied and fault. */
static __always_inline void dt_payload_gather(struct dt_scratch *scratch, struct dt_batch *batch, __u64 iovecs, __u64 n_iovecs)
{
	__u64 wanted;
	int i;

	scratch->n_segments = n_iovecs < DT_MAX_IOVECS ? n_iovecs : DT_MAX_IOVECS;
	if (!scratch->n_segments || !scratch->wanted)
		return;
	if (bpf_probe_read_user(scratch->iovecs, dt_bound(scratch->n_segments * sizeof(struct dt_iovec), sizeof(scratch->iovecs)),
				(const void *)iovecs) < 0) {
		scratch->fault = 1;
		return;
	}
#ifdef __clang__
	/* Unrolled, the verifier needs half as many steps for a vector of messages. */
#pragma clang loop unroll(full)
#endif
	for (i = 0; i < DT_MAX_IOVECS; i++) {
		if (i >= scratch->n_segments || scratch->copied >= scratch->wanted)
			break;
		wanted = scratch->wanted - scratch->copied;
		if (scratch->iovecs[i].length < wanted)
			wanted = scratch->iovecs[i].length;
		if (!wanted)
			continue;
		if (!dt_payload_copy(batch, scratch->copied, scratch->iovecs[i].base, wanted)) {
			scratch->fault = 1;
			break;
		}
		scratch->copied += wanted;
	}
}

/* Copy the first scratch->wanted bytes of a message. Sets scratch->copied and fault.
 * shape: BUFFER or IOVEC, or UNSEEN for none; address and count as the call passed them. */
static __always_inline void dt_payload_read(struct dt_scratch *scratch, struct dt_batch *batch, __u8 shape, __u64 address,
					    __u64 count)
{
	scratch->copied = 0;
	scratch->fault = 0;
	if (shape == DT_SHAPE_BUFFER) {
		scratch->copied = dt_payload_copy(batch, 0, address, scratch->wanted);
		scratch->fault = scratch->wanted && !scratch->copied;
	} else if (shape == DT_SHAPE_IOVEC) {
		dt_payload_gather(scratch, batch, address, count);
	}
}

/* The peer that a datagram call names, into the tuple; unchanged when it names none or its memory cannot be read.
 * room: bytes that are there, of which the kernel wrote or read no more. */
static __always_inline void dt_peer_read(struct dt_quintuple *tuple, __u64 address, __u32 room)
{
	struct dt_user_sockaddr name = {};
	__u64 v6_last = 0;

	if (!address || room < sizeof(name) || bpf_probe_read_user(&name, sizeof(name), (const void *)address) < 0)
		return;
	if (name.family == DT_AF_INET) {
		dt_v4_mapped(tuple->peer_addr, name.v4);
	} else if (name.family == DT_AF_INET6) {
		if (room < sizeof(name) + sizeof(v6_last) ||
		    bpf_probe_read_user(&v6_last, sizeof(v6_last), (const void *)(address + sizeof(name))) < 0)
			return;
		*(__u64 *)tuple->peer_addr = name.v6_first;
		*(__u64 *)(tuple->peer_addr + 8) = v6_last;
	} else {
		return;
	}
	tuple->peer_port = dt_port(name.port_be);
}
