/* One call at a time: its record, its position, and what is no record. */

static void bounds_hold_for_every_length(void)
{
	const __u64 lengths[] = { 0, 1, 112, DT_MAX_PAYLOAD - 1, DT_MAX_PAYLOAD, DT_MAX_PAYLOAD + 1, 1ull << 32, ~0ull };

	for (unsigned i = 0; i < sizeof(lengths) / sizeof(*lengths); i++)
		for (unsigned j = 0; j < sizeof(lengths) / sizeof(*lengths); j++) {
			__u64 bound = dt_bound(lengths[i], lengths[j]);

			CHECK(bound <= lengths[i] && bound <= lengths[j]);
		}
}

static void vectors_are_gathered_like_a_reference(void)
{
	static __u8 memory[40000], expected[40000];
	struct dt_scratch *scratch = &SCRATCH_slots[0].value;
	struct dt_batch *batch = &BATCHES_slots[0].value;

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
		batch->used = rand() % (DT_BATCH_BYTES + 1);
		dt_payload_read(scratch, batch, DT_SHAPE_IOVEC, (__u64)iovecs, n);
		CHECK(scratch->copied == have && scratch->fault == (__u64)fault);
		CHECK(!memcmp(batch->bytes + batch->used + sizeof(struct dt_record), expected, have));
	}
}

static void a_write_becomes_a_record(void)
{
	reset();
	do_write(TCP_FD, "hello world", 11, 5);
	CHECK(host_n_out == 1 && host_out[0].bytes == sizeof(struct dt_record) + 8);
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
		socks[TCP_FD].rcv_nxt = socks[TCP_FD].copied_seq;
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
