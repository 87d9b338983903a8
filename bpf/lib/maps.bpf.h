/* SPDX-License-Identifier: Apache-2.0
 * The maps of the probes. Sizes are parameters of the loader (-DDT_MAX_...), because preallocated maps cost memory from the
 * first second on. Arrays where they can be: a lookup in one is inlined (2 ns), in a hash it is a call (20). */
#pragma once
#include "dt_records.h"

#define DT_MMAPABLE 1024 /* linux/bpf.h: BPF_F_MMAPABLE; read by the agent without a system call */

/* tgid -> DT_PID_*. Processes that are told apart, and their children. */
BPF_TABLE("hash", __u32, __u32, PIDS, DT_MAX_PIDS);

BPF_TABLE("array", int, struct dt_config, CONFIG, 1);

/* Threads by tid modulo the size, a power of two; see thread.bpf.h. */
BPF_F_TABLE("array", int, struct dt_thread, THREADS, DT_MAX_THREADS, DT_MMAPABLE);
BPF_TABLE("hash", __u32, struct dt_thread, THREADS_MORE, DT_MAX_THREADS_MORE);
/* index of THREADS -> tid that took it: the one place where two threads cannot both succeed. */
BPF_TABLE("hash", int, __u32, OWNERS, DT_MAX_THREADS);

/* tid -> connect(2) in flight. Blocking connects are few and short; entries live for one call. */
struct dt_connecting {
	__u64 enter_ns;
	__u64 socket;
};
BPF_TABLE("hash", __u32, struct dt_connecting, connecting, DT_MAX_CONNECTING);

/* struct sock -> what is remembered of it. LRU: a socket that is forgotten costs captured head bytes, no correctness. */
BPF_TABLE("lru_hash", __u64, struct dt_socket_info, SOCKETS, DT_MAX_SOCKETS);

/* struct sock -> what user space wants of it */
BPF_TABLE("hash", __u64, struct dt_limit, LIMITS, DT_MAX_LIMITS);

/* by CPU */
BPF_F_TABLE("array", int, struct dt_counts, COUNTERS, DT_MAX_CPUS, DT_MMAPABLE);
BPF_F_TABLE("array", int, struct dt_batch, BATCHES, DT_MAX_CPUS, DT_MMAPABLE);

/* emit attempts of records that are not DATA */
BPF_TABLE("percpu_array", int, __u64, EMITTED, 1);

BPF_PERF_OUTPUT(EVENTS);
