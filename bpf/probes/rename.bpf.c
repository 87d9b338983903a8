/* SPDX-License-Identifier: Apache-2.0
 * Threads that take another name or cgroup: whether they are traced is decided again at their next call. The other threads of
 * their process follow when user space changes the epoch, which it does once a second while there are such rules. */
#include "../lib/armed.bpf.h"
#include "../lib/thread.bpf.h"

static __always_inline void dt_verdict_forget(__u64 task)
{
	struct dt_thread *thread = dt_thread_find(dt_kernel_u32(task + DT_OFF_TASK_PID));

	if (thread)
		thread->filter_epoch = 0;
}

/* task_rename(task, comm): before the name is taken, by prctl(2) in the thread itself. So a process that calls itself
 * "deeptrace" is DeepTrace's own from its next call on. */
int dt_raw_task_rename(struct bpf_raw_tracepoint_args *ctx)
{
	dt_verdict_forget(ctx->args[0]);
	return 0;
}

/* cgroup_attach_task(cgroup, path, leader, whether with all its threads) */
int dt_raw_cgroup_attach_task(struct bpf_raw_tracepoint_args *ctx)
{
	dt_verdict_forget(ctx->args[2]);
	return 0;
}
