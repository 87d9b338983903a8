/* SPDX-License-Identifier: Apache-2.0
 * The maps of the rules: what user space says of processes by their name, executable and cgroup, and of connections by
 * their ends. Each maps to DT_RULE_ALLOW or DT_RULE_DENY; which of them hold anything stands in CONFIG.rules. */
#pragma once
#include "dt_records.h"

#ifndef DT_MAX_RULES
#define DT_MAX_RULES 1024      /* of each kind: 0.1 MB; rules are written by people, cgroups stand for all that is below them */
#endif
#define DT_MAX_CGROUP_LEVELS 12 /* from the root down; a container of a cluster inside a container is at 8. Its own cgroup always counts */

/* Name of a thread group's leader, padded with zeros. */
struct dt_comm {
	__u8 text[DT_COMM_LEN];
};
BPF_TABLE("hash", struct dt_comm, __u32, RULES_COMM, DT_MAX_RULES);

BPF_TABLE("hash", struct dt_file_id, __u32, RULES_EXE, DT_MAX_RULES);

/* id of a cgroup of the unified hierarchy */
BPF_TABLE("hash", __u64, __u32, RULES_CGROUP, DT_MAX_RULES);

BPF_TABLE("hash", struct dt_endpoint, __u32, RULES_PORT, DT_MAX_RULES);
