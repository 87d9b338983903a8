/* SPDX-License-Identifier: Apache-2.0
 * The one way out: every record leaves through dt_emit, which numbers it and counts the ones that do not fit. */
#pragma once
#include "counters.bpf.h"

/* record: followed by its payload; bytes: both. The caller has counted the attempt. */
static __always_inline void dt_emit(void *ctx, struct dt_record *record, __u64 bytes)
{
	int zero = 0;
	__u64 *emitted = EMITTED.lookup(&zero);

	record->cpu = bpf_get_smp_processor_id();
	if (emitted)
		record->cpu_count = ++*emitted;
	if (EVENTS.perf_submit(ctx, record, bytes) < 0)
		dt_count(DT_COUNT_RING_FULL);
}
