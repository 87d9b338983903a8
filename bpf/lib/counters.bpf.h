/* SPDX-License-Identifier: Apache-2.0
 * Counts every outcome, per CPU. No branch of a probe drops anything without one of these. */
#pragma once
#include "maps.bpf.h"

enum dt_counter {
#define DT_COUNTER(number, name, ...) DT_COUNT_##name = number,
#include "counters.def"
#undef DT_COUNTER
};

static __always_inline struct dt_counts *dt_counts_here(void)
{
	int cpu = bpf_get_smp_processor_id();

	return COUNTERS.lookup(&cpu);
}

/* For counters that only the data syscalls touch: these hooks never interrupt each other on one CPU, so a plain
 * addition is exact and saves the locked one (5 ns). number: a constant. */
static __always_inline void dt_count_call(int number, __u64 amount)
{
	struct dt_counts *counts = dt_counts_here();

	if (counts)
		counts->value[number] += amount;
}

/* For all others: raw tracepoints run in softirqs that may interrupt another probe. */
static __always_inline void dt_count(int number)
{
	struct dt_counts *counts = dt_counts_here();

	if (counts)
		__sync_fetch_and_add(&counts->value[number], 1);
}
