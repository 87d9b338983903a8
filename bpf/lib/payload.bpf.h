/* SPDX-License-Identifier: Apache-2.0
 * Copies the bytes of one message from user memory into scratch memory, in every shape in which a system call passes
 * them. Reads at most DT_MAX_IOVECS segments and never more than the message's own length. */
#pragma once
#include "alloc.bpf.h"
#include "counters.bpf.h"

enum dt_shape {
	DT_SHAPE_BUFFER = 1,
	DT_SHAPE_IOVEC = 2,
	DT_SHAPE_MSGHDR = 3,
	DT_SHAPE_MMSGHDR = 4,
	DT_SHAPE_UNSEEN = 5,
};

/* linux/socket.h: struct user_msghdr and struct mmsghdr of 64-bit processes (32-bit ones do not reach the tracepoints). */
struct dt_user_msghdr {
	__u64 name;
	__u64 name_length;
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

/* The one place that bounds lengths: no read and no output is longer than what this returns. 64 bits wide, since a
 * 32-bit value is copied and shifted before each use and the verifier loses its bounds in the copy. */
static __always_inline __u64 dt_bound(__u64 bytes, __u64 most)
{
	if (bytes > most)
		bytes = most;
	/* The compiler would drop the next comparison where it can prove it; the verifier cannot follow such proofs. */
	asm volatile("" : "+r"(bytes));
	if (bytes > DT_MAX_PAYLOAD)
		bytes = DT_MAX_PAYLOAD;
	return bytes;
}

/* Copy to payload[offset]. Returns bytes copied, all or none; offset <= DT_MAX_PAYLOAD. */
static __always_inline __u64 dt_payload_copy(struct dt_scratch *scratch, __u64 offset, __u64 address, __u64 bytes)
{
	bytes = dt_bound(bytes, DT_MAX_PAYLOAD);
	offset = dt_bound(offset, DT_MAX_PAYLOAD);
	if (!bytes || bpf_probe_read_user(scratch->payload + offset, bytes, (const void *)address) < 0)
		return 0;
	return bytes;
}

/* Copy the first scratch->wanted bytes of a vector, segments in order, to scratch->payload. Sets scratch->copied and
 * fault. */
static __always_inline void dt_payload_gather(struct dt_scratch *scratch, __u64 iovecs, __u64 n_iovecs)
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
		if (!dt_payload_copy(scratch, scratch->copied, scratch->iovecs[i].base, wanted)) {
			scratch->fault = 1;
			break;
		}
		scratch->copied += wanted;
	}
}

/* Copy the first scratch->wanted bytes of a message to scratch->payload. Sets scratch->copied and fault.
 * shape: BUFFER, IOVEC, MSGHDR or UNSEEN; address and count as the call passed them. */
static __always_inline void dt_payload_read(struct dt_scratch *scratch, __u8 shape, __u64 address, __u64 count)
{
	struct dt_user_msghdr header;

	scratch->copied = 0;
	scratch->fault = 0;
	if (shape == DT_SHAPE_UNSEEN)
		return;
	if (shape == DT_SHAPE_IOVEC) {
		dt_payload_gather(scratch, address, count);
	} else if (shape == DT_SHAPE_MSGHDR) {
		if (bpf_probe_read_user(&header, sizeof(header), (const void *)address) < 0)
			scratch->fault = 1;
		else
			dt_payload_gather(scratch, header.iovecs, header.n_iovecs);
	} else {
		scratch->copied = dt_payload_copy(scratch, 0, address, scratch->wanted);
		scratch->fault = scratch->wanted && !scratch->copied;
	}
}
