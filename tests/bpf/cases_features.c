/* Batches, deadline, settled connections, limits, unix streams, peers of datagrams, calls that waited, splice, shedding. */

static void records_wait_and_leave_together(void)
{
	reset();
	CONFIG_slots[0].value.batch_bytes = 500;
	for (int i = 0; i < 7; i++)
		do_write(TCP_FD, "hello", 5, 5);
	/* 120 bytes each: five are more than 500. */
	CHECK(host_n_out == 1 && host_out[0].bytes == 600 && BATCHES_slots[0].value.used == 240 && BATCHES_slots[0].value.generation == 1);
	for (int i = 0; i < 5; i++) {
		const struct dt_record *record = (const struct dt_record *)(host_out[0].data + 120 * i);

		CHECK(record->cpu_count == (__u64)i + 1 && !memcmp(record + 1, "hello", 5));
	}
	host_ring_full = 1;
	for (int i = 0; i < 3; i++)
		do_write(TCP_FD, "hello", 5, 5);
	CHECK(counter(DT_COUNT_RING_FULL) == 5 && BATCHES_slots[0].value.used == 0 && BATCHES_slots[0].value.generation == 2);
}

static void hooks_stop_when_nobody_listens(void)
{
	reset();
	CONFIG_slots[0].value.deadline_ns = host_now + 100;
	do_write(TCP_FD, "a", 1, 1);
	host_now += 1000;
	do_write(TCP_FD, "b", 1, 1);
	do_write(TCP_FD, "c", 1, 1);
	CHECK(host_n_out == 1 && counter(DT_COUNT_LAPSED) == 1 && counter(DT_COUNT_CALLS) == 2 && counter(DT_COUNT_INTERRUPTED) == 1);
	CONFIG_slots[0].value.lapsed = 0;
	CONFIG_slots[0].value.deadline_ns = host_now + 1000;
	do_write(TCP_FD, "d", 1, 1);
	CHECK(host_n_out == 2);
}

static void a_settled_connection_is_not_looked_up_and_a_reused_socket_is(void)
{
	reset();
	CONFIG_slots[0].value.head_bytes = 4;
	for (int i = 0; i < 5; i++)
		do_write(TCP_FD, "abcd", 4, 4);
	CHECK(THREADS_slots[101 % DT_MAX_THREADS].value.settled[1].socket == (__u64)&socks[TCP_FD]);
	CHECK(SOCKETS_slots[0].value.calls == 0); /* to be looked up after DT_LIMIT_EVERY calls */
	/* Another connection at the same address: its stream does not go on where the old one was left. */
	dt_socket_end((__u64)&socks[TCP_FD]);
	socks[TCP_FD].write_seq += 100000;
	do_write(TCP_FD, "abcd", 4, 4);
	CHECK(host_n_out == 6 && out(5)->flags & DT_RECORD_FIRST);
}

static void a_limit_holds_for_the_connection_that_it_names(void)
{
	__u64 sk = (__u64)&socks[TCP_FD];
	struct dt_limit other = { .payload_limit = 2, .local_port = 1, .peer_port = 0x50 }, its = { 3, 4242, 0x50 };

	reset();
	LIMITS_update(&sk, &other);
	do_write(TCP_FD, "abcdef", 6, 6);
	CHECK(out(0)->payload_len == 6);
	LIMITS_update(&sk, &its);
	for (unsigned i = 0; i <= 2 * DT_LIMIT_EVERY; i++)
		do_write(TCP_FD, "abcdef", 6, 6);
	CHECK(out(host_n_out - 1)->payload_len == 3 && counter(DT_COUNT_PAYLOAD_CUT));
}

static void unix_streams_are_followed_where_they_are_wanted(void)
{
	reset();
	socks[UNIX_FD].unix_peer = 77;
	do_write(UNIX_FD, "abc", 3, 3);
	CHECK(host_n_out == 0 && counter(DT_COUNT_OTHER_SOCKET) == 1);
	CONFIG_slots[0].value.unix_sockets = 1;
	do_write(UNIX_FD, "abc", 3, 3);
	do_write(UNIX_FD, "de", 2, 2);
	CHECK(host_n_out == 2 && out(1)->tuple.family == 1 && out(1)->seq_enter == 3 && out(1)->seq_exit == 5);
	CHECK(out(1)->flags == DT_RECORD_COUNTED && *(__u64 *)out(1)->tuple.peer_addr == 77);
	CHECK(*(__u64 *)out(1)->tuple.local_addr == (__u64)&socks[UNIX_FD]);
}

static void a_datagram_has_the_peer_that_its_call_names(void)
{
	__u8 v4[16] = { 2, 0, 0x12, 0x34, 10, 1, 2, 3 }, v6[28] = { 10, 0, 0x43, 0x21, 0, 0, 0, 0, 0xfe, 0x80, [23] = 9 };
	struct tracepoint__syscalls__sys_enter_sendto enter = { .fd = UDP_FD, .buff = (__u64)"abc", .len = 3, .addr = (__u64)v4, .addr_len = 16 };
	struct tracepoint__syscalls__sys_exit_sendto leave = { .ret = 3 };

	reset();
	socks[UDP_FD].dport_be = 0;
	dt_enter_sendto(&enter);
	dt_exit_sendto(&leave);
	enter.addr = (__u64)v6;
	enter.addr_len = 28;
	dt_enter_sendto(&enter);
	dt_exit_sendto(&leave);
	enter.addr = 0;
	dt_enter_sendto(&enter);
	dt_exit_sendto(&leave);
	CHECK(host_n_out == 3 && out(0)->tuple.peer_port == 0x1234 && out(0)->tuple.peer_addr[12] == 10 && out(0)->tuple.peer_addr[15] == 3);
	CHECK(out(1)->tuple.peer_port == 0x4321 && out(1)->tuple.peer_addr[0] == 0xfe && out(1)->tuple.peer_addr[15] == 9);
	CHECK(out(2)->tuple.peer_port == 0 && out(2)->tuple.peer_addr[15] == 0);
}

static void a_call_that_waited_when_tracing_began_is_followed(void)
{
	char memory[10] = "abcdefgh";
	struct tracepoint__syscalls__sys_exit_read leave = { .ret = 3 };

	reset();
	THREADS_slots[101 % DT_MAX_THREADS].value = (struct dt_thread){ .tid = 101, .call = { .enter_ns = 5, .buffer = (__u64)memory, .count = 10,
		.peer = TCP_FD, .syscall = DT_SYSCALL_read, .direction = DT_INGRESS, .flags = DT_CALL_BLOCKED } };
	dt_exit_read(&leave);
	CHECK(host_n_out == 1 && out(0)->flags & DT_RECORD_ENTER_MISSED && out(0)->flags & DT_RECORD_SEQ_AMBIGUOUS);
	CHECK(out(0)->seq_enter == 497 && out(0)->seq_exit == 500 && !memcmp(payload(0), "abc", 3) && out(0)->tuple.local_port == 4242);
	CHECK(counter(DT_COUNT_CALLS) == 1 && counter(DT_COUNT_BLOCKED_FOLLOWED) == 1);
}

static void splice_is_seen_from_either_side(void)
{
	struct tracepoint__syscalls__sys_enter_splice enter = { .fd_in = FILE_FD, .fd_out = TCP_FD, .len = 3 };
	struct tracepoint__syscalls__sys_exit_splice leave = { .ret = 3 };

	reset();
	dt_enter_splice(&enter);
	socks[TCP_FD].write_seq += 3;
	dt_exit_splice(&leave);
	enter.fd_in = TCP_FD;
	enter.fd_out = FILE_FD;
	dt_enter_splice(&enter);
	socks[TCP_FD].copied_seq += 3;
	dt_exit_splice(&leave);
	CHECK(host_n_out == 2 && out(0)->direction == DT_EGRESS && out(1)->direction == DT_INGRESS && out(0)->payload_len == 0);
	CHECK(out(0)->result == 3 && !((out(0)->flags | out(1)->flags) & DT_RECORD_SEQ_AMBIGUOUS));
}

static void connections_are_shed_whole_and_come_back(void)
{
	static struct host_sock many[64];
	int whole = 0, gone = 0;

	reset();
	CONFIG_slots[0].value.events_per_s = 1000;
	for (int round = 0; round < 400; round++)
		for (int i = 0; i < 64; i++) {
			host_now += 100000; /* ten times too fast */
			dt_bucket_allows(&CONFIG_slots[0].value, (__u64)&many[i], host_now, 1);
		}
	for (int i = 0; i < 64; i++) {
		int allowed = 0;

		for (int round = 0; round < 20; round++) {
			host_now += 2000000;
			allowed += dt_bucket_allows(&CONFIG_slots[0].value, (__u64)&many[i], host_now, 1);
		}
		whole += allowed == 20;
		gone += allowed == 0;
	}
	CHECK(whole + gone > 56 && gone);
	for (int i = 0; i < 20000; i++) {
		host_now += 10000000;
		dt_bucket_allows(&CONFIG_slots[0].value, (__u64)&many[0], host_now, 1);
	}
	CHECK(SHEDDING_slots[0].value.share == 0);
}
