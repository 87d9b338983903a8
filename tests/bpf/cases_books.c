/* Whatever happens, every call is counted once and every record is accounted for. */

#ifndef HOST_ROUNDS
#define HOST_ROUNDS 40000 /* enough for every outcome */
#endif

static __u64 in_flight(void)
{
	__u64 n = 0;

	for (int i = 0; i < DT_MAX_THREADS; i++)
		n += THREADS_slots[i].value.call.enter_ns != 0;
	for (int i = 0; i < DT_MAX_THREADS_MORE; i++)
		n += THREADS_MORE_slots[i].used && THREADS_MORE_slots[i].value.call.enter_ns;
	return n;
}

/* The records in all samples so far; forgets them. */
static __u64 records_out(void)
{
	__u64 n = 0;

	for (int i = 0; i < host_n_out; i++)
		for (size_t at = 0; at + sizeof(struct dt_record) <= host_out[i].bytes; n++)
			at += (sizeof(struct dt_record) + ((const struct dt_record *)(host_out[i].data + at))->payload_len + 7) & ~7ul;
	host_forget_out();
	return n;
}

static const int OUTCOMES[] = { DT_COUNT_DATA_EMITTED, DT_COUNT_NOT_SOCKET, DT_COUNT_OTHER_SOCKET, DT_COUNT_NO_DATA, DT_COUNT_INTERRUPTED,
	DT_COUNT_MAP_INSERT_FAILED, DT_COUNT_MAP_GET_FAILED, DT_COUNT_INVALID_DIRECTION, DT_COUNT_SYSCALL_PAYLOAD_LENGTH_INVALID,
	DT_COUNT_MESSAGE_CUT, DT_COUNT_SHED, DT_COUNT_MUTED, DT_COUNT_PORT_FILTERED };

/* One thing that may happen to one of five threads. */
static void something_happens(struct dt_user_mmsghdr *vector, char *memory)
{
	static const char *missing[] = { "SCRATCH", "BATCHES", NULL };
	struct tracepoint__syscalls__sys_enter_write one = { .fd = rand() % (N_FDS + 1), .buf = (__u64)memory, .count = 50, .buff = (__u64)memory,
		.len = 50, .fd_out = rand() % (N_FDS + 1), .fd_in = rand() % (N_FDS + 1) };
	struct tracepoint__syscalls__sys_enter_recvmmsg many = { .fd = one.fd, .mmsg = rand() % 9 ? (__u64)vector : 8, .vlen = 20 };
	struct tracepoint__syscalls__sys_exit_write wrote = { .ret = rand() % 60 - 5 };
	struct tracepoint__syscalls__sys_exit_recvmmsg got = { .ret = rand() % 25 - 2 };
	struct bpf_raw_tracepoint_args exit_args = { { (__u64)host_task } };
	struct dt_arguments odd = { .fd = one.fd, .buffer = (__u64)memory, .count = 50 };
	__u32 tid = 200 + rand() % 6;
	struct dt_thread *thread;

	host_id = (__u64)100 << 32 | tid;
	*(__u32 *)(host_task + DT_OFF_TASK_PID) = tid;
	*(__u32 *)(host_task + DT_OFF_TASK_TGID) = 100;
	process.live = 1;
	host_ring_full = rand() % 10 == 0;
	host_missing = rand() % 20 ? NULL : missing[rand() % 3];
	CONFIG_slots[0].value.events_per_s = rand() % 4 ? 0 : 1000;
	switch (rand() % 15) {
	case 0: case 1: dt_enter_write(&one); break;
	case 2: case 3: dt_exit_write((void *)&wrote); break;
	case 4: dt_enter_recvmmsg(&many); break;
	case 5: dt_exit_recvmmsg((void *)&got); break;
	case 6: dt_enter_sendto((void *)&one); break;
	case 7: dt_exit_sendto((void *)&wrote); break;
	case 8: dt_call_enter(1, 2 + rand() % 9, DT_SHAPE_BUFFER, &odd); break;
	case 9: dt_enter_splice((void *)&one); break;
	case 10: dt_exit_splice((void *)&wrote); break;
	case 12: dt_enter_read((void *)&one); break;
	case 13: dt_exit_read((void *)&wrote); break;
	case 11:
		/* What the agent puts there for a call that waited when it came. */
		thread = dt_thread_find(tid);
		if (thread && !thread->call.enter_ns)
			thread->call = (struct dt_inflight){ .enter_ns = 1, .buffer = (__u64)memory, .count = 50, .peer = one.fd, .syscall = DT_SYSCALL_read,
				.direction = DT_INGRESS, .flags = DT_CALL_BLOCKED };
		break;
	default:
		if (rand() % 4 == 0)
			dt_raw_sched_process_exit(&exit_args);
		if (rand() % 50 == 0)
			SOCKETS_slots[rand() % DT_MAX_SOCKETS].value.payload_limit = rand() % 2 ? DT_LIMIT_MUTE : DT_LIMIT_DEFAULT;
		if (rand() % 50 == 0)
			SOCKETS_slots[rand() % DT_MAX_SOCKETS].value.flags ^= DT_SOCKET_IGNORED;
	}
}

/* Calls in flight that were counted when they were entered. */
static __u64 blocked(void)
{
	__u64 n = 0;

	for (int i = 0; i < DT_MAX_THREADS; i++)
		n += THREADS_slots[i].value.call.enter_ns && THREADS_slots[i].value.call.flags & DT_CALL_BLOCKED;
	for (int i = 0; i < DT_MAX_THREADS_MORE; i++)
		n += THREADS_MORE_slots[i].used && THREADS_MORE_slots[i].value.call.enter_ns &&
		     THREADS_MORE_slots[i].value.call.flags & DT_CALL_BLOCKED;
	return n;
}

/* Random enters and exits of several threads, with exits and enters missing, full maps, dying threads and bad memory. */
static void the_books_balance_whatever_happens(__u32 batch_bytes)
{
	static char memory[2000];
	struct dt_user_mmsghdr vector[20] = {};
	struct dt_iovec iovec = { (__u64)memory, 2000 };
	__u64 outcomes = 0, emitted = 0;

	reset();
	srand(11);
	CONFIG_slots[0].value.batch_bytes = batch_bytes;
	CONFIG_slots[0].value.unix_sockets = 1;
	for (int i = 0; i < 20; i++) {
		vector[i].header.iovecs = (__u64)&iovec;
		vector[i].header.n_iovecs = 1;
		vector[i].length = i % 7 ? i : 0;
	}
	vector[9].length = 0x80000000;
	for (int i = 0; i < HOST_ROUNDS; i++) {
		something_happens(vector, memory);
		emitted += records_out();
	}
	for (unsigned i = 0; i < sizeof(OUTCOMES) / sizeof(*OUTCOMES); i++) {
		outcomes += counter(OUTCOMES[i]);
		if (!counter(OUTCOMES[i]))
			printf("counter %d was never needed\n", OUTCOMES[i]);
		CHECK(counter(OUTCOMES[i]));
	}
	CHECK(counter(DT_COUNT_CALLS) > 10000 && counter(DT_COUNT_ENTER_MISSED) && counter(DT_COUNT_SOCKET_FORGOTTEN));
	CHECK(counter(DT_COUNT_BLOCKED_FOLLOWED) && counter(DT_COUNT_MUTED_BYTES) && counter(DT_COUNT_SHED_BYTES));
	CHECK(counter(DT_COUNT_CALLS) + counter(DT_COUNT_EXTRA_MESSAGES) == outcomes + in_flight() - blocked());
	CHECK(counter(DT_COUNT_DATA_EMITTED) == emitted + counter(DT_COUNT_RING_FULL) + BATCHES_slots[0].value.records);
	CHECK(BATCHES_slots[0].value.count == counter(DT_COUNT_DATA_EMITTED));
}
