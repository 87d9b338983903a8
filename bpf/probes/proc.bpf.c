/* SPDX-License-Identifier: Apache-2.0
 * Processes: children inherit what their parent's entry in PIDS says, ends clean up after threads and processes.
 * Raw tracepoints, since the plain ones do not say whether a fork made a thread or a process. */
#include "../lib/armed.bpf.h"
#include "../lib/emit.bpf.h"
#include "../lib/log.bpf.h"
#include "../lib/process.bpf.h"
#include "../lib/thread.bpf.h"

struct dt_proc_record {
	struct dt_record record;
	struct dt_process process;
};

/* Emit a process record of a task. */
static __always_inline void dt_proc_emit(void *ctx, struct dt_config *config, __u8 event, __u64 task, __u32 parent_tgid, int result)
{
	struct dt_proc_record proc = {};

	proc.record.exit_ns = bpf_ktime_get_ns();
	if (dt_lapses(config, proc.record.exit_ns))
		return;
	proc.record.enter_ns = proc.record.exit_ns;
	proc.record.tgid = dt_kernel_u32(task + DT_OFF_TASK_TGID);
	proc.record.tid = dt_kernel_u32(task + DT_OFF_TASK_PID);
	proc.record.parent_tgid = parent_tgid;
	proc.record.result = result;
	proc.record.payload_len = sizeof(proc.process);
	proc.record.kind = DT_KIND_PROC;
	proc.record.code = event;
	dt_process_fill(&proc.process, task);
	dt_count(DT_COUNT_PROC_EMITTED);
	dt_emit_event(ctx, &proc.record, sizeof(proc));
}

/* Remove a thread's contexts; a data call that is still open never returns. */
static __always_inline void dt_thread_forget(__u32 tid)
{
	if (dt_thread_end(tid))
		dt_count(DT_COUNT_INTERRUPTED);
	if (connecting.lookup(&tid))
		connecting.delete(&tid);
}

/* Whether a thread that ends or executes was traced: what is cached of it, since its name and program may be gone or new. */
static __always_inline int dt_thread_was_traced(const struct dt_config *config, __u32 tid, __u32 tgid)
{
	struct dt_thread *thread = dt_thread_find(tid);

	if (thread && thread->filter_epoch == config->filter_epoch && thread->tgid == tgid)
		return thread->traced;
	return dt_verdict(config, tgid);
}

/* sched_process_fork(parent, child) */
int dt_raw_sched_process_fork(struct bpf_raw_tracepoint_args *ctx)
{
	struct dt_config *config = dt_armed();
	__u64 child = ctx->args[1];
	__u32 parent_tgid = dt_kernel_u32(ctx->args[0] + DT_OFF_TASK_TGID);
	__u32 child_tgid = dt_kernel_u32(child + DT_OFF_TASK_TGID);
	__u32 *flags, inherited;

	if (child_tgid == parent_tgid)
		return 0; /* a thread */
	/* Inherited even before the hooks are armed: a parent may be named and fork while the agent is still starting. */
	flags = PIDS.lookup(&parent_tgid);
	if (flags && *flags & DT_PID_FOLLOW) {
		inherited = *flags;
		if (PIDS.update(&child_tgid, &inherited) < 0) {
			dt_log(ctx, NO_ROOM_CHILD, child_tgid, parent_tgid, 0);
			dt_count(DT_COUNT_CHILD_NOT_FOLLOWED);
		}
	}
	if (config && dt_verdict(config, child_tgid)) {
		dt_log(ctx, CHILD, child_tgid, parent_tgid, 0);
		dt_proc_emit(ctx, config, DT_PROC_FORK, child, parent_tgid, 0);
	}
	return 0;
}

/* sched_process_exec(task, old_pid, binprm) */
int dt_raw_sched_process_exec(struct bpf_raw_tracepoint_args *ctx)
{
	struct dt_config *config = dt_armed();
	__u64 task = ctx->args[0];
	__u32 old_tid = ctx->args[1], tid = dt_kernel_u32(task + DT_OFF_TASK_PID), tgid = dt_kernel_u32(task + DT_OFF_TASK_TGID);
	struct dt_thread *thread;
	int traced = config ? dt_thread_was_traced(config, old_tid, tgid) : 0;

	/* A thread that is not the leader takes the leader's number with its exec. */
	if (old_tid != tid)
		dt_thread_forget(old_tid);
	/* Another name, another program: other rules may hold. */
	thread = dt_thread_find(tid);
	if (thread)
		thread->filter_epoch = 0;
	/* Also told when tracing ends with the exec: what the process was before has ended. */
	if (config && (traced || dt_verdict(config, tgid))) {
		dt_log(ctx, PROGRAM, tgid, tid, traced);
		dt_proc_emit(ctx, config, DT_PROC_EXEC, task, 0, 0);
	}
	return 0;
}

/* sched_process_exit(task): runs once per thread, in that thread, after it left its group's count of living threads. */
int dt_raw_sched_process_exit(struct bpf_raw_tracepoint_args *ctx)
{
	struct dt_config *config = dt_armed();
	__u64 task = ctx->args[0];
	__u32 tgid = dt_kernel_u32(task + DT_OFF_TASK_TGID), tid = dt_kernel_u32(task + DT_OFF_TASK_PID);
	__u64 signal = dt_kernel_u64(task + DT_OFF_TASK_SIGNAL);
	int code, traced = config ? dt_thread_was_traced(config, tid, tgid) : 0;

	dt_thread_forget(tid);
	if (dt_kernel_u32(signal + DT_OFF_SIGNAL_LIVE))
		return 0; /* other threads of the process live on */
	/* Two threads may end at once and both be the last: the one that removes the entry speaks. */
	if (PIDS.lookup(&tgid) && PIDS.delete(&tgid) < 0)
		return 0;
	if (!traced)
		return 0;
	code = dt_kernel_u32(signal + DT_OFF_SIGNAL_GROUP_EXIT_CODE);
	if (!code)
		code = dt_kernel_u32(task + DT_OFF_TASK_EXIT_CODE);
	dt_proc_emit(ctx, config, DT_PROC_EXIT, task, 0, code);
	return 0;
}
