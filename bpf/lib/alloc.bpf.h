/* SPDX-License-Identifier: Apache-2.0
 * Scratch memory of a data call on its way out: what does not fit on the 512-byte BPF stack, and loop variables. */
#pragma once
#include "maps.bpf.h"

struct dt_iovec {
	__u64 base;
	__u64 length;
};

/* Loop variables live here and not on the stack: what is loaded from a map is one unknown to the verifier, where a register
 * multiplies the states that it has to follow (recvmmsg would need more than its million steps). */
struct dt_scratch {
	__u64 wanted;          /* bytes of the message to copy; <= DT_MAX_PAYLOAD */
	__u64 copied;          /* bytes of the message copied so far */
	__u64 fault;           /* 1: memory of this message could not be read */
	__u64 n_segments;      /* of this message's vector; <= DT_MAX_IOVECS */
	__u64 n_messages;      /* of this call */
	__u64 before;          /* bytes of the call's earlier messages */
	__u64 n_bytes;         /* of the first DT_MAX_MESSAGES of them, on a stream */
	struct dt_inflight call; /* the call, while a vector is emitted */
	struct dt_socket_info info; /* what is remembered of the socket, while a vector is emitted */
	struct dt_iovec iovecs[DT_MAX_IOVECS];
};

/* Indexed by CPU. Only the data syscalls use it; they run with preemption off and never interrupt each other. */
BPF_TABLE("array", int, struct dt_scratch, SCRATCH, DT_MAX_CPUS);

static __always_inline struct dt_scratch *dt_scratch_take(void)
{
	int cpu = bpf_get_smp_processor_id();

	return SCRATCH.lookup(&cpu);
}

static __always_inline struct dt_batch *dt_batch_take(void)
{
	int cpu = bpf_get_smp_processor_id();

	return BATCHES.lookup(&cpu);
}
