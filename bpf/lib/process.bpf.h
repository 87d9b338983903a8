/* SPDX-License-Identifier: Apache-2.0
 * Which process a task belongs to: its leader's name and start, its cgroup. A few reads through helpers, for hooks that run
 * once in a process's or a connection's life. */
#pragma once
#include "dt_records.h"
#include "read.bpf.h"

/* Fill in the process of a task. Its name and start are the leader's: a thread may carry a name of its own. */
static __always_inline void dt_process_fill(struct dt_process *process, __u64 task)
{
	__u64 leader = dt_kernel_u64(task + DT_OFF_TASK_GROUP_LEADER);
	__u64 cgroup = dt_kernel_u64(dt_kernel_u64(task + DT_OFF_TASK_CGROUPS) + DT_OFF_CSS_SET_DFL_CGRP);

	bpf_probe_read_kernel(process->comm, sizeof(process->comm), (const void *)(leader + DT_OFF_TASK_COMM));
	process->start_ns = dt_kernel_u64(leader + DT_OFF_TASK_START_BOOTTIME);
	process->cgroup = dt_kernel_u64(dt_kernel_u64(cgroup + DT_OFF_CGROUP_KN) + DT_OFF_KERNFS_ID);
}
