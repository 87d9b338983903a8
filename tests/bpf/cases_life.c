/* Processes, connections and the log. */

static void the_last_thread_ends_the_process(void)
{
	struct bpf_raw_tracepoint_args args = { { (__u64)host_task } };
	__u32 tgid = 100;

	reset();
	*(__u32 *)(host_task + DT_OFF_TASK_TGID) = tgid;
	process.live = 1;
	dt_raw_sched_process_exit(&args);
	CHECK(host_n_out == 0 && PIDS_lookup(&tgid));
	process.live = 0;
	process.group_exit_code = 9;
	dt_raw_sched_process_exit(&args);
	CHECK(counter(DT_COUNT_PROC_EMITTED) == 1);
	CHECK(host_n_out == 1 && out(0)->code == DT_PROC_EXIT && out(0)->result == 9 && !PIDS_lookup(&tgid));
}

static void an_event_that_finds_the_ring_full_is_counted(void)
{
	struct bpf_raw_tracepoint_args args = { { (__u64)host_task } };

	reset();
	*(__u32 *)(host_task + DT_OFF_TASK_TGID) = 100;
	process.live = 0;
	host_ring_full = 1;
	dt_raw_sched_process_exit(&args);
	CHECK(host_n_out == 0 && counter(DT_COUNT_PROC_EMITTED) == 1 && counter(DT_COUNT_RING_FULL) == 1);
}

/* In a debug build alone. */
static void a_line_of_the_log_is_emitted_where_it_is_wanted(void)
{
#ifdef DT_DEBUG
	int ctx = 0;

	reset();
	dt_log(&ctx, NO_SCRATCH, 1, 2, 3);
	CHECK(host_n_out == 0);
	CONFIG_slots[0].value.log_level = DT_LOG_ERROR;
	dt_log(&ctx, NO_SCRATCH, 1, 2, 3);
	dt_log(&ctx, LAPSED, 1, 2, 3);
	CHECK(host_n_out == 1 && out(0)->kind == DT_KIND_LOG && ((const struct dt_log *)payload(0))->values[2] == 3);
	CHECK(counter(DT_COUNT_LOG_EMITTED) == 1);
#endif
}

static void a_child_that_does_not_fit_is_counted(void)
{
	char child[128] __attribute__((aligned(8))) = {};
	struct bpf_raw_tracepoint_args args = { { (__u64)host_task, (__u64)child } };

	reset();
	*(__u32 *)(host_task + DT_OFF_TASK_TGID) = 100;
	for (int i = 0; i < DT_MAX_PIDS; i++) {
		*(__u32 *)(child + DT_OFF_TASK_TGID) = 300 + i;
		dt_raw_sched_process_fork(&args);
	}
	CHECK(counter(DT_COUNT_CHILD_NOT_FOLLOWED) == 1 && host_n_out == DT_MAX_PIDS - 1);
	CHECK(out(0)->tgid == 300 && out(0)->parent_tgid == 100 && out(0)->code == DT_PROC_FORK);
}

static void a_reset_connection_is_told_once(void)
{
	struct bpf_raw_tracepoint_args args = { { (__u64)&socks[TCP6_FD], 1, DT_TCP_CLOSE } };

	reset();
	dt_raw_inet_sock_set_state(&args);
	CHECK(host_n_out == 0);
	do_write(TCP6_FD, "x", 1, 1);
	socks[TCP6_FD].error = 104;
	dt_raw_inet_sock_set_state(&args);
	dt_raw_inet_sock_set_state(&args);
	CHECK(host_n_out == 2 && out(1)->code == DT_CONN_CLOSED && out(1)->result == -104 && out(1)->tgid == 0);
	CHECK(counter(DT_COUNT_CONN_EMITTED) == 1);
	CHECK(out(1)->tuple.tcp_state == DT_TCP_CLOSE && out(1)->tuple.family == 10);
}
