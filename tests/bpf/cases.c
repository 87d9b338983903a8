/* Cases for the probes as ordinary C. Built by test_host.py: host.h, the flattened probes, then this file. */

#define FOPS 0x1234
enum { FILE_FD, TCP_FD, TCP6_FD, UDP_FD, UNIX_FD, N_FDS };

static struct host_sock socks[N_FDS];
static struct host_socket sockets[N_FDS];
static struct host_file files[N_FDS];
static __u64 descriptors[N_FDS];
static struct host_table table = { N_FDS, 0, (__u64)descriptors };
static struct host_files open_files = { 0, (__u64)&table };
static struct host_process process;
static __u64 namespaces[1] = { 77 };
static int failures;

#define CHECK(condition) \
	do { \
		if (!(condition)) { \
			failures++; \
			printf("%s:%d: %s\n", __func__, __LINE__, #condition); \
		} \
	} while (0)

static void reset(void)
{
	host_forget_out();
	host_ring_full = 0;
	host_cpu = 0;
	memset(PIDS_slots, 0, sizeof(PIDS_slots));
	memset(ingress_slots, 0, sizeof(ingress_slots));
	memset(egress_slots, 0, sizeof(egress_slots));
	memset(SOCKETS_slots, 0, sizeof(SOCKETS_slots));
	memset(connecting_slots, 0, sizeof(connecting_slots));
	memset(COUNTERS_slots, 0, sizeof(COUNTERS_slots));
	CONFIG_slots[0].value = (struct dt_config){ .socket_fops = FOPS, .payload_bytes = 100, .head_bytes = 0 };
	PIDS_slots[0].used = 1;
	PIDS_slots[0].key = 100;
	PIDS_slots[0].value = DT_PID_TRACE | DT_PID_FOLLOW;
	*(__u64 *)(host_task + DT_OFF_TASK_FILES) = (__u64)&open_files;
	*(__u64 *)(host_task + DT_OFF_TASK_SIGNAL) = (__u64)&process;
	host_id = (__u64)100 << 32 | 101;
	for (int i = 0; i < N_FDS; i++) {
		socks[i] = (struct host_sock){ .daddr = 0x0100007f, .saddr = 0x0200007f, .dport_be = 0x5000, .num = 4242,
			.family = i == TCP6_FD ? 10 : i == UNIX_FD ? 1 : 2, .state = 1, .net = (__u64)namespaces,
			.type = i == UDP_FD ? 2 : 1, .protocol = i == UDP_FD ? 17 : 6, .write_seq = 0xfffffff0, .copied_seq = 500,
			.sport_be = 0x9210 };
		sockets[i].sk = (__u64)&socks[i];
		files[i] = (struct host_file){ .f_op = i == FILE_FD ? 1 : FOPS, .private_data = (__u64)&sockets[i] };
		descriptors[i] = (__u64)&files[i];
	}
}

static __u64 counter(int number)
{
	return COUNTERS_slots[number].value;
}

static const struct dt_record *out(int i)
{
	return (const struct dt_record *)host_out[i].data;
}

static const char *payload(int i)
{
	return (const char *)(host_out[i].data + sizeof(struct dt_record));
}

static long do_write(__u32 fd, const void *data, __u64 count, long ret)
{
	struct tracepoint__syscalls__sys_enter_write enter = { .fd = fd, .buf = (__u64)data, .count = count };
	struct tracepoint__syscalls__sys_exit_write leave = { .ret = ret };

	dt_enter_write(&enter);
	if (ret > 0 && fd < N_FDS)
		socks[fd].write_seq += ret;
	return dt_exit_write(&leave);
}

static void bounds_hold_for_every_length(void)
{
	const __u64 lengths[] = { 0, 1, 112, DT_MAX_PAYLOAD - 1, DT_MAX_PAYLOAD, DT_MAX_PAYLOAD + 1, 1ull << 32, ~0ull };

	for (unsigned i = 0; i < sizeof(lengths) / sizeof(*lengths); i++)
		for (unsigned j = 0; j < sizeof(lengths) / sizeof(*lengths); j++) {
			__u64 bound = dt_bound(lengths[i], lengths[j]);

			CHECK(bound <= DT_MAX_PAYLOAD && bound <= lengths[i] && bound <= lengths[j]);
		}
}

static void vectors_are_gathered_like_a_reference(void)
{
	static __u8 memory[40000], expected[40000];
	struct dt_scratch *scratch = &SCRATCH_slots[0].value;

	for (unsigned i = 0; i < sizeof(memory); i++)
		memory[i] = i * 31 + i / 251;
	srand(7);
	for (int round = 0; round < 3000; round++) {
		struct dt_iovec iovecs[12];
		int n = rand() % 12, used = n < DT_MAX_IOVECS ? n : DT_MAX_IOVECS, fault = 0;
		__u64 wanted = rand() % (round % 3 ? 300 : DT_MAX_PAYLOAD + 1), have = 0;

		for (int i = 0; i < n; i++) {
			int scale = rand() % 4;

			iovecs[i].length = scale ? rand() % (scale == 1 ? 20 : 5000) : 0;
			iovecs[i].base = (__u64)memory + rand() % (sizeof(memory) - 5000);
			if (round % 50 == 0 && i == 2)
				iovecs[i].base = 8;
		}
		for (int i = 0; i < used && have < wanted && !fault; i++) {
			__u64 part = iovecs[i].length < wanted - have ? iovecs[i].length : wanted - have;

			fault = part && iovecs[i].base < HOST_BAD;
			if (!fault)
				memcpy(expected + have, (void *)iovecs[i].base, part);
			have += fault ? 0 : part;
		}
		scratch->wanted = wanted;
		dt_payload_read(scratch, DT_SHAPE_IOVEC, (__u64)iovecs, n);
		CHECK(scratch->copied == have && scratch->fault == (__u64)fault);
		CHECK(!memcmp(scratch->payload, expected, have));
	}
}

static void a_write_becomes_a_record(void)
{
	reset();
	do_write(TCP_FD, "hello world", 11, 5);
	CHECK(host_n_out == 1 && host_out[0].bytes == sizeof(struct dt_record) + 5);
	CHECK(!memcmp(payload(0), "hello", 5));
	CHECK(out(0)->result == 5 && out(0)->tuple.local_port == 4242 && out(0)->tuple.peer_port == 0x50);
	CHECK(out(0)->tuple.peer_addr[10] == 0xff && out(0)->tuple.peer_addr[15] == 1 && out(0)->netns == 77);
	CHECK(out(0)->seq_enter == 0xfffffff0 && out(0)->seq_exit == 0xfffffff5);
	CHECK(out(0)->flags == (DT_RECORD_SEQ_VALID | DT_RECORD_FIRST) && out(0)->tgid == 100 && out(0)->tid == 101);
}

static void what_is_no_internet_socket_is_counted(void)
{
	reset();
	do_write(FILE_FD, "x", 1, 1);
	do_write(N_FDS, "x", 1, 1);
	do_write(0xffffffff, "x", 1, 1);
	do_write(UNIX_FD, "x", 1, 1);
	socks[TCP_FD].type = DT_SOCK_RAW;
	do_write(TCP_FD, "x", 1, 1);
	socks[UDP_FD].protocol = 262 & 0xffff; /* MPTCP */
	do_write(UDP_FD, "x", 1, 1);
	CHECK(host_n_out == 0 && counter(DT_COUNT_NOT_SOCKET) == 3 && counter(DT_COUNT_OTHER_SOCKET) == 3);
}

static void impossible_results_are_refused(void)
{
	reset();
	do_write(TCP_FD, "x", 1, 2);
	do_write(TCP_FD, "x", 1, 0x7fffffffffffffff);
	do_write(TCP_FD, "x", 1, -104);
	do_write(TCP_FD, "x", 1, 0);
	CHECK(host_n_out == 0 && counter(DT_COUNT_SYSCALL_PAYLOAD_LENGTH_INVALID) == 2 && counter(DT_COUNT_NO_DATA) == 2);
}

static void memory_that_cannot_be_read_is_flagged(void)
{
	reset();
	do_write(TCP_FD, (void *)8, 30, 30);
	CHECK(host_n_out == 1 && out(0)->payload_len == 0 && out(0)->flags & DT_RECORD_READ_FAULT);
	CHECK(counter(DT_COUNT_READ_FAULT) == 1 && counter(DT_COUNT_PAYLOAD_CUT) == 1);
}

static void fast_open_and_concurrent_writes_are_ambiguous(void)
{
	struct tracepoint__syscalls__sys_enter_write enter = { .fd = TCP_FD, .buf = (__u64)"abc", .count = 3 };
	struct tracepoint__syscalls__sys_exit_write leave = { .ret = 3 };

	reset();
	socks[TCP_FD].state = DT_TCP_SYN_SENT;
	do_write(TCP_FD, "abc", 3, 3);
	socks[TCP_FD].state = 1;
	dt_enter_write(&enter);
	socks[TCP_FD].write_seq += 7;
	dt_exit_write(&leave);
	CHECK(host_n_out == 2 && out(0)->flags & out(1)->flags & DT_RECORD_SEQ_AMBIGUOUS);
}

static void one_number_more_than_was_read_is_a_fin_or_ambiguous(void)
{
	char memory[10] = "abc";
	struct tracepoint__syscalls__sys_enter_read enter = { .fd = TCP_FD, .buf = (__u64)memory, .count = 10 };
	struct tracepoint__syscalls__sys_exit_read leave = { .ret = 3 };

	reset();
	for (int fin = 0; fin < 2; fin++) {
		dt_enter_read(&enter);
		socks[TCP_FD].copied_seq += 4;
		socks[TCP_FD].state = fin ? DT_TCP_CLOSE_WAIT : 1;
		dt_exit_read(&leave);
	}
	CHECK(host_n_out == 2 && out(0)->flags & DT_RECORD_SEQ_AMBIGUOUS && !(out(1)->flags & DT_RECORD_SEQ_AMBIGUOUS));
}

static void a_closed_socket_still_has_its_local_port(void)
{
	reset();
	socks[TCP_FD].num = 0;
	socks[TCP_FD].state = DT_TCP_CLOSE;
	do_write(TCP_FD, "abc", 3, 3);
	CHECK(host_n_out == 1 && out(0)->tuple.local_port == 4242);
	CHECK(!SOCKETS_lookup(&sockets[TCP_FD].sk));
}

static void messages_have_positions_across_the_wrap(void)
{
	struct dt_iovec iovecs[3] = { { (__u64)"aaaaaaaaaa", 10 }, { (__u64)"bb", 2 }, { (__u64)"cccccccccccc", 12 } };
	struct dt_user_mmsghdr vector[3] = {};
	struct tracepoint__syscalls__sys_enter_sendmmsg enter = { .fd = TCP_FD, .mmsg = (__u64)vector, .vlen = 3 };
	struct tracepoint__syscalls__sys_exit_sendmmsg leave = { .ret = 3 };

	reset();
	for (int i = 0; i < 3; i++) {
		vector[i].header.iovecs = (__u64)&iovecs[i];
		vector[i].header.n_iovecs = 1;
		vector[i].length = iovecs[i].length;
	}
	vector[1].length = 0;
	dt_enter_sendmmsg(&enter);
	socks[TCP_FD].write_seq += 22;
	dt_exit_sendmmsg(&leave);
	CHECK(host_n_out == 2 && out(0)->seq_enter == 0xfffffff0 && out(0)->seq_exit == 0xfffffffa);
	CHECK(out(1)->seq_enter == 0xfffffffa && out(1)->seq_exit == 6 && out(1)->message_index == 2);
	CHECK(!(out(1)->flags & DT_RECORD_SEQ_AMBIGUOUS) && !memcmp(payload(1), "cccccccccccc", 12));
	CHECK(counter(DT_COUNT_NO_DATA) == 1 && counter(DT_COUNT_EXTRA_MESSAGES) == 2);
}

static __u64 in_flight(void)
{
	__u64 n = 0;

	for (int i = 0; i < DT_MAX_THREADS; i++)
		n += (ingress_slots[i].used && ingress_slots[i].value.enter_ns) + (egress_slots[i].used && egress_slots[i].value.enter_ns);
	return n;
}

/* Random enters and exits of several threads, with exits and enters missing, full maps, dying threads and bad memory. */
static void the_books_balance_whatever_happens(void)
{
	static char memory[2000];
	struct dt_user_mmsghdr vector[20] = {};
	struct dt_iovec iovec = { (__u64)memory, 2000 };
	__u64 outcomes = 0, emitted = 0;

	reset();
	srand(11);
	for (int i = 0; i < 20; i++) {
		vector[i].header.iovecs = (__u64)&iovec;
		vector[i].header.n_iovecs = 1;
		vector[i].length = i % 7 ? i : 0;
	}
	vector[9].length = 0x80000000;
	for (int i = 0; i < 50000; i++) {
		struct tracepoint__syscalls__sys_enter_write one = { .fd = rand() % (N_FDS + 1), .buf = (__u64)memory, .count = 50 };
		struct tracepoint__syscalls__sys_enter_recvmmsg many = { .fd = one.fd, .mmsg = rand() % 9 ? (__u64)vector : 8, .vlen = 20 };
		struct tracepoint__syscalls__sys_exit_write wrote = { .ret = rand() % 60 - 5 };
		struct tracepoint__syscalls__sys_exit_recvmmsg got = { .ret = rand() % 25 - 2 };
		struct bpf_raw_tracepoint_args exit_args = { { (__u64)host_task } };

		host_id = (__u64)100 << 32 | (200 + rand() % 5);
		*(__u32 *)(host_task + DT_OFF_TASK_PID) = (__u32)host_id;
		*(__u32 *)(host_task + DT_OFF_TASK_TGID) = 100;
		process.live = 1;
		host_ring_full = rand() % 10 == 0;
		host_cpu = rand() % 20 == 0;
		switch (rand() % 10) {
		case 0: case 1: dt_enter_write(&one); break;
		case 2: case 3: dt_exit_write((void *)&wrote); break;
		case 4: dt_enter_recvmmsg(&many); break;
		case 5: dt_exit_recvmmsg((void *)&got); break;
		case 6: dt_enter_sendto((void *)&one); break;
		case 7: dt_exit_sendto((void *)&wrote); break;
		case 8: dt_call_enter(1, 2 + rand() % 9, one.fd, one.buf, one.count, 0); break;
		default:
			if (rand() % 4 == 0)
				dt_raw_sched_process_exit(&exit_args);
		}
		emitted += host_n_out;
		host_forget_out();
	}
	for (int i = 1; i < 64; i++)
		if (i == DT_COUNT_DATA_EMITTED || i == DT_COUNT_NOT_SOCKET || i == DT_COUNT_OTHER_SOCKET || i == DT_COUNT_NO_DATA ||
		    i == DT_COUNT_INTERRUPTED || i == DT_COUNT_MAP_INSERT_FAILED || i == DT_COUNT_MAP_GET_FAILED ||
		    i == DT_COUNT_INVALID_DIRECTION || i == DT_COUNT_SYSCALL_PAYLOAD_LENGTH_INVALID || i == DT_COUNT_MESSAGE_CUT)
			outcomes += counter(i);
	CHECK(counter(DT_COUNT_CALLS) > 10000 && counter(DT_COUNT_MAP_INSERT_FAILED) && counter(DT_COUNT_INTERRUPTED));
	CHECK(counter(DT_COUNT_CALLS) + counter(DT_COUNT_EXTRA_MESSAGES) == outcomes + in_flight());
	CHECK(counter(DT_COUNT_DATA_EMITTED) == emitted + counter(DT_COUNT_RING_FULL));
	CHECK(counter(DT_COUNT_ENTER_MISSED) && counter(DT_COUNT_MAP_GET_FAILED) && counter(DT_COUNT_INVALID_DIRECTION));
	CHECK(counter(DT_COUNT_SOCKET_FORGOTTEN));
}

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

static void a_child_that_does_not_fit_is_counted(void)
{
	char child[64] = {};
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

int main(void)
{
	bounds_hold_for_every_length();
	vectors_are_gathered_like_a_reference();
	a_write_becomes_a_record();
	what_is_no_internet_socket_is_counted();
	impossible_results_are_refused();
	memory_that_cannot_be_read_is_flagged();
	fast_open_and_concurrent_writes_are_ambiguous();
	one_number_more_than_was_read_is_a_fin_or_ambiguous();
	a_closed_socket_still_has_its_local_port();
	messages_have_positions_across_the_wrap();
	the_books_balance_whatever_happens();
	the_last_thread_ends_the_process();
	a_child_that_does_not_fit_is_counted();
	a_reset_connection_is_told_once();
	host_forget_out();
	printf("%d failures\n", failures);
	return failures != 0;
}
