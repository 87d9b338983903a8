/* SPDX-License-Identifier: Apache-2.0
 * Bounds what a CPU may emit. Tokens for records and for bytes come at the configured rates; when they run out, connections are
 * shed whole, by a hash of their socket, so that the others stay complete; when there are tokens again, they come back. */
#pragma once
#include "counters.bpf.h"

#define DT_SECOND_NS 1000000000ULL
#define DT_REFILL_NS 1000000ULL        /* a division this often, not at every record */
#define DT_SHED_NS 20000000ULL         /* the share that is shed changes no faster: time for a change to show */
#define DT_SHED_UP 16                  /* of 256: a burst of twice the bound is met in 0.2 s */
#define DT_SHED_DOWN 2                 /* slowly back, or it would swing */
#define DT_SHED_ALL 256
#define DT_BURST_SHIFT 2               /* tokens of a quarter second are kept */

struct dt_bucket {
	__u64 filled_ns;
	__u64 events;
	__u64 bytes;
};
BPF_TABLE("array", int, struct dt_bucket, BUCKETS, DT_MAX_CPUS);

/* One for all CPUs: a connection is shed everywhere or nowhere. Two CPUs that change it at once make one step of two. */
struct dt_shedding {
	__u64 changed_ns;
	__u64 share;           /* of 256: connections that are shed */
};
BPF_TABLE("array", int, struct dt_shedding, SHEDDING, 1);

static __always_inline __u32 dt_shed_hash(__u64 sk)
{
	/* Fibonacci hashing: sockets lie at multiples of their size. */
	return (sk >> 6) * 0x9e3779b97f4a7c15ULL >> 56;
}

static __always_inline void dt_bucket_fill(struct dt_bucket *bucket, const struct dt_config *config, __u64 now_ns)
{
	__u64 passed = now_ns - bucket->filled_ns;
	__u64 events = config->events_per_s, bytes = config->bytes_per_s;

	if (passed < DT_REFILL_NS)
		return;
	if (passed > DT_SECOND_NS)
		passed = DT_SECOND_NS;
	bucket->filled_ns = now_ns;
	/* In microseconds: nanoseconds times a rate of 10 GB/s would not fit. */
	bucket->events += passed / 1000 * events / 1000000;
	bucket->bytes += passed / 1000 * bytes / 1000000;
	if (bucket->events > events >> DT_BURST_SHIFT)
		bucket->events = events >> DT_BURST_SHIFT;
	if (bucket->bytes > bytes >> DT_BURST_SHIFT)
		bucket->bytes = bytes >> DT_BURST_SHIFT;
}

static __always_inline void dt_shed_adapt(struct dt_shedding *shedding, __u64 now_ns, int short_of_tokens)
{
	if (now_ns - shedding->changed_ns < DT_SHED_NS)
		return;
	shedding->changed_ns = now_ns;
	if (short_of_tokens)
		shedding->share = shedding->share + DT_SHED_UP < DT_SHED_ALL ? shedding->share + DT_SHED_UP : DT_SHED_ALL;
	else
		shedding->share -= shedding->share < DT_SHED_DOWN ? shedding->share : DT_SHED_DOWN;
}

/* Whether so many records may be emitted for this socket. Their bytes are spent when they are known. */
static __always_inline int dt_bucket_allows(const struct dt_config *config, __u64 sk, __u64 now_ns, __u64 events)
{
	int zero = 0, cpu = bpf_get_smp_processor_id();
	struct dt_shedding *shedding;
	struct dt_bucket *bucket;
	int is_short;

	if (!config->events_per_s && !config->bytes_per_s)
		return 1;
	bucket = BUCKETS.lookup(&cpu);
	shedding = SHEDDING.lookup(&zero);
	if (!bucket || !shedding)
		return 1;
	dt_bucket_fill(bucket, config, now_ns);
	is_short = (config->events_per_s && bucket->events < events) || (config->bytes_per_s && !bucket->bytes);
	if (is_short || (shedding->share && bucket->events >= config->events_per_s >> (DT_BURST_SHIFT + 1)))
		dt_shed_adapt(shedding, now_ns, is_short);
	if (is_short || dt_shed_hash(sk) < shedding->share)
		return 0;
	bucket->events -= bucket->events < events ? bucket->events : events;
	return 1;
}

/* What was emitted takes its bytes, even if there were fewer: the next record pays. */
static __always_inline void dt_bucket_spend(const struct dt_config *config, __u64 bytes)
{
	int cpu = bpf_get_smp_processor_id();
	struct dt_bucket *bucket;

	if (!config->bytes_per_s)
		return;
	bucket = BUCKETS.lookup(&cpu);
	if (bucket)
		bucket->bytes -= bucket->bytes < bytes ? bucket->bytes : bytes;
}
