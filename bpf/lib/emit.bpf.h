/* SPDX-License-Identifier: Apache-2.0
 * The ways out. DATA records are built where they wait, in BATCHES, and leave several at once: handing one sample to the ring
 * costs as much as all the rest of a call. What has waited too long the agent takes itself. All other records leave alone,
 * as their hooks may interrupt one that is building a record. */
#pragma once
#include "counters.bpf.h"

/* The one place that bounds lengths: no read and no output is longer than what this returns. 64 bits wide, since a
 * 32-bit value is copied and shifted before each use and the verifier loses its bounds in the copy. */
static __always_inline __u64 dt_bound(__u64 bytes, __u64 most)
{
	if (bytes > most)
		bytes = most;
	/* The compiler would drop the next comparison where it can prove it; the verifier cannot follow such proofs. */
	asm volatile("" : "+r"(bytes));
	if (bytes > most)
		bytes = most;
	return bytes;
}

/* Emit what waits on this CPU. */
static __always_inline void dt_batch_flush(void *ctx, struct dt_batch *batch)
{
	__u64 bytes = dt_bound(batch->used, DT_BATCH_BYTES + sizeof(struct dt_record) + DT_MAX_PAYLOAD + 8);

	if (EVENTS.perf_submit(ctx, batch->bytes, bytes) < 0)
		dt_count_call(DT_COUNT_RING_FULL, batch->records);
	batch->records = 0;
	/* In this order: whoever finds the new generation finds nothing of the old one. */
	*(volatile __u64 *)&batch->used = 0;
	*(volatile __u64 *)&batch->generation = batch->generation + 1;
}

/* A record that was built at the end of the batch, with its payload behind it, is whole: it may be taken. */
static __always_inline void dt_batch_add(void *ctx, const struct dt_config *config, struct dt_batch *batch, __u64 payload_bytes)
{
	__u64 used = batch->used + ((sizeof(struct dt_record) + payload_bytes + 7) & ~7ULL);

	dt_count_call(DT_COUNT_DATA_EMITTED, 1);
	batch->records++;
	asm volatile("" ::: "memory");
	*(volatile __u64 *)&batch->used = used;
	if (used >= config->batch_bytes)
		dt_batch_flush(ctx, batch);
}

/* Emit a record that is not DATA, or of a hook that may interrupt a data call's. record: followed by its payload; bytes: both. The
 * caller has counted the attempt. */
static __always_inline void dt_emit_event(void *ctx, struct dt_record *record, __u64 bytes)
{
	int zero = 0;
	__u64 *emitted = EMITTED.lookup(&zero);

	record->cpu = bpf_get_smp_processor_id();
	if (emitted)
		record->cpu_count = ++*emitted;
	if (EVENTS.perf_submit(ctx, record, bytes) < 0)
		dt_count(DT_COUNT_RING_FULL);
}
