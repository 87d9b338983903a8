/* SPDX-License-Identifier: Apache-2.0
 * What is known of the current thread: whether it is traced, and its call in flight.
 *
 * THREADS is an array, since a lookup in a hash costs ten times as much. Where kernel.pid_max is no larger than it
 * (DT_THREADS_EXACT) each thread has an index of its own. Elsewhere a thread takes its index for life, and OWNERS sees to
 * it that only one does; the few that come too late stand in THREADS_MORE. */
#pragma once
#include "counters.bpf.h"
#include "filter.bpf.h"
#include "remember.bpf.h"

/* The entry of a thread; NULL if it has none. */
static __always_inline struct dt_thread *dt_thread_find(__u32 tid)
{
	int index = tid & (DT_MAX_THREADS - 1);
	struct dt_thread *thread = THREADS.lookup(&index);

	if (!thread || thread->tid == tid)
		return thread;
#ifndef DT_THREADS_EXACT
	if (thread->crowded)
		return THREADS_MORE.lookup(&tid);
#endif
	return NULL;
}

/* Make a thread's entry; NULL when there is no room. */
static __always_inline struct dt_thread *dt_thread_make(__u32 tid, __u32 tgid)
{
	int index = tid & (DT_MAX_THREADS - 1);
	struct dt_thread *thread = THREADS.lookup(&index);

	if (!thread)
		return NULL;
#ifndef DT_THREADS_EXACT
	if (OWNERS.insert(&index, &tid) < 0) {
		struct dt_thread more = { .tid = tid };

		thread->crowded = 1;
		THREADS_MORE.update(&tid, &more);
		thread = THREADS_MORE.lookup(&tid);
		if (!thread)
			return NULL;
	}
#endif
	thread->filter_epoch = 0;
	thread->call.enter_ns = 0;
	thread->settled[0].socket = thread->settled[1].socket = 0;
	thread->tgid = tgid;
	thread->tid = tid;
	return thread;
}

/* Forget a thread that ended. Returns 1 if it was in a call. */
static __always_inline int dt_thread_end(__u32 tid)
{
	struct dt_thread *thread = dt_thread_find(tid);
	int in_call;
#ifndef DT_THREADS_EXACT
	int index = tid & (DT_MAX_THREADS - 1);
	__u32 *owner = OWNERS.lookup(&index);
#endif

	if (!thread)
		return 0;
	in_call = thread->call.enter_ns && !(thread->call.flags & DT_CALL_BLOCKED);
	if (in_call)
		dt_call_over(&thread->call);
	thread->call.enter_ns = 0;
	thread->filter_epoch = 0;
	thread->tid = 0;
#ifndef DT_THREADS_EXACT
	if (owner && *owner == tid) {
		if (OWNERS.delete(&index) < 0)
			dt_count(DT_COUNT_MAP_DELETE_FAILED);
	} else if (THREADS_MORE.delete(&tid) < 0) {
		dt_count(DT_COUNT_MAP_DELETE_FAILED);
	}
#endif
	return in_call;
}

/* The entry of the current thread if it is traced, else NULL. id: as bpf_get_current_pid_tgid gives it. A traced thread for
 * which there is no room is counted as a call that was not followed if `counted`. */
static __always_inline struct dt_thread *dt_thread_traced(const struct dt_config *config, __u64 id, int counted)
{
	__u32 tid = id, tgid = id >> 32, epoch;
	struct dt_thread *thread = dt_thread_find(tid);
	int traced;

	if (!thread)
		thread = dt_thread_make(tid, tgid);
	epoch = config->filter_epoch; /* read first: what changes during the verdict has another one */
	if (thread && thread->filter_epoch == epoch && thread->tgid == tgid)
		return thread->traced ? thread : NULL;
	traced = dt_verdict(config, tgid);
	if (thread) {
		thread->tgid = tgid;
		thread->traced = traced;
		thread->filter_epoch = epoch;
	} else if (traced && counted) {
		dt_count_call(DT_COUNT_CALLS, 1);
		dt_count_call(DT_COUNT_MAP_INSERT_FAILED, 1);
	}
	return traced ? thread : NULL;
}
