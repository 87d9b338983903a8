/* SPDX-License-Identifier: Apache-2.0
 * Scratch memory in which a data record is built: a record with its payload is larger than the 512-byte BPF stack. */
#pragma once
#include "maps.bpf.h"

struct dt_iovec {
	__u64 base;
	__u64 length;
};

/* Payload is twice the most that is emitted: a chunk of at most DT_MAX_PAYLOAD bytes may be written at any offset below
 * DT_MAX_PAYLOAD, which is the bound that the verifier understands. */
struct dt_scratch {
	/* Loop variables live here and not on the stack: what is loaded from a map is one unknown to the verifier, where
	 * a register multiplies the states that it has to follow (recvmmsg would need more than its million steps). */
	__u64 wanted;          /* bytes of the message to copy; <= DT_MAX_PAYLOAD */
	__u64 copied;          /* bytes of the message in payload so far */
	__u64 fault;           /* 1: memory of this message could not be read */
	__u64 n_segments;      /* of this message's vector; <= DT_MAX_IOVECS */
	__u64 n_messages;      /* of this call */
	__u64 before;          /* bytes of the call's earlier messages */
	struct dt_iovec iovecs[DT_MAX_IOVECS];
	struct dt_record record;
	__u8 payload[2 * DT_MAX_PAYLOAD];
};

/* An array indexed by CPU, for per-CPU maps end at 32 KiB. Only the data syscalls use it; they run with preemption off
 * and never interrupt each other. */
BPF_TABLE("array", int, struct dt_scratch, SCRATCH, DT_MAX_CPUS);

static __always_inline struct dt_scratch *dt_scratch_take(void)
{
	int cpu = bpf_get_smp_processor_id();

	return SCRATCH.lookup(&cpu);
}
