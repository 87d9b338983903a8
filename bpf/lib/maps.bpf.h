/* SPDX-License-Identifier: Apache-2.0
 * The maps of the probes, under the design's names. Sizes are parameters of the loader (-DDT_MAX_...), because
 * preallocated maps cost memory from the first second on. */
#pragma once
#include "dt_records.h"

/* tgid -> DT_PID_*. Processes that are told apart, and their children. */
BPF_TABLE("hash", __u32, __u32, PIDS, DT_MAX_PIDS);

BPF_TABLE("array", int, struct dt_config, CONFIG, 1);

/* tid -> call in flight. One entry per thread that ever moved bytes, kept between calls (an update and a delete per
 * call cost 100 ns more), deleted when the thread ends. Two maps, since readers often never write and the reverse. */
BPF_TABLE("hash", __u32, struct dt_inflight, ingress, DT_MAX_THREADS);
BPF_TABLE("hash", __u32, struct dt_inflight, egress, DT_MAX_THREADS);

/* tid -> connect(2) in flight. Blocking connects are few and short; entries live for one call. */
struct dt_connecting {
	__u64 enter_ns;
	__u64 socket;
};
BPF_TABLE("hash", __u32, struct dt_connecting, connecting, DT_MAX_CONNECTING);

/* struct sock -> what is remembered of it. LRU: a socket that is forgotten costs captured head bytes, no correctness. */
BPF_TABLE("lru_hash", __u64, struct dt_socket_info, SOCKETS, DT_MAX_SOCKETS);

/* indexed by the numbers of counters.def */
BPF_TABLE("percpu_array", int, __u64, COUNTERS, 64);

/* emit attempts of this CPU */
BPF_TABLE("percpu_array", int, __u64, EMITTED, 1);

BPF_PERF_OUTPUT(EVENTS);
