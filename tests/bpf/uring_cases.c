/* Cases for the io_uring probes as ordinary C. Built by test_uring_cases.py: host.h, the flattened group, then this file. */

#define FOPS 0x1234
enum { FILE_FD, TCP_FD, UDP_FD, RAW_FD, N_FDS };

static struct host_sock socks[N_FDS];
static struct host_socket sockets[N_FDS];
static struct host_file files[N_FDS];
static __u64 descriptors[N_FDS];
static struct host_table table = { N_FDS, 0, (__u64)descriptors };
static struct host_files open_files = { 0, (__u64)&table };
static struct host_ring ring = { (__u64)descriptors };
static struct host_kiocb reqs[5]; /* one more than are remembered */
static __u64 namespaces[1] = { 77 };
static char owner[128] __attribute__((aligned(8)));
static int failures;

#define CHECK(condition) \
	do { \
		if (!(condition)) { \
			failures++; \
			printf("%s:%d: %s\n", __func__, __LINE__, #condition); \
		} \
	} while (0)

static __u64 counter(int number)
{
	return COUNTERS_slots[0].value.value[number];
}

static void reset(void)
{
	host_forget_out();
	memset(PIDS_slots, 0, sizeof(PIDS_slots));
	memset(THREADS_slots, 0, sizeof(THREADS_slots));
	memset(SOCKETS_slots, 0, sizeof(SOCKETS_slots));
	memset(COUNTERS_slots, 0, sizeof(COUNTERS_slots));
	memset(URING_slots, 0, sizeof(URING_slots));
	memset(URING_SHOTS_slots, 0, sizeof(URING_SHOTS_slots));
	memset(reqs, 0, sizeof(reqs));
	CONFIG_slots[0].value = (struct dt_config){ .socket_fops = FOPS, .payload_bytes = 100, .filter_epoch = 1 };
	PIDS_slots[0].used = 1;
	PIDS_slots[0].key = 100;
	PIDS_slots[0].value = DT_PID_TRACE;
	*(__u64 *)(host_task + DT_OFF_TASK_FILES) = (__u64)&open_files;
	*(__u32 *)(owner + DT_OFF_TASK_TGID) = 100;
	host_id = (__u64)100 << 32 | 101;
	for (int i = 0; i < N_FDS; i++) {
		socks[i] = (struct host_sock){ .daddr = 0x0100007f, .saddr = 0x0200007f, .dport_be = 0x5000, .num = 4242, .family = 2,
			.state = 1, .net = (__u64)namespaces, .type = i == UDP_FD ? 2 : i == RAW_FD ? 3 : 1,
			.protocol = i == UDP_FD ? 17 : 6, .write_seq = 1000, .copied_seq = 500 };
		sockets[i].sk = (__u64)&socks[i];
		files[i] = (struct host_file){ .f_op = i == FILE_FD ? 1 : FOPS, .private_data = (__u64)&sockets[i] };
		descriptors[i] = (__u64)&files[i];
	}
}

/* The outcomes of all requests add up to them. */
static void check_books(void)
{
	static const int outcomes[] = { DT_COUNT_DATA_EMITTED, DT_COUNT_NO_DATA, DT_COUNT_OTHER_SOCKET, DT_COUNT_INTERRUPTED,
		DT_COUNT_MAP_INSERT_FAILED, DT_COUNT_MUTED, DT_COUNT_PORT_FILTERED, DT_COUNT_SHED };
	__u64 sum = 0;

	for (unsigned i = 0; i < sizeof(outcomes) / sizeof(*outcomes); i++)
		sum += counter(outcomes[i]);
	CHECK(counter(DT_COUNT_URING_CALLS) == sum);
	CHECK(counter(DT_COUNT_DATA_EMITTED) == (__u64)host_n_out);
}

static struct host_kiocb *submit(int slot, int opcode, int fd, const void *memory, __u32 length, int sqe_flags)
{
	struct host_kiocb *req = &reqs[slot];
	struct bpf_raw_tracepoint_args args = { { (__u64)req } };

	memset(req, 0, sizeof(*req));
	req->opcode = opcode;
	req->flags = sqe_flags;
	req->ctx = (__u64)&ring;
	req->task = (__u64)owner;
	req->user_data = 1000 + slot;
	req->cqe_flags = fd;
	if (dt_uring_is_rw(dt_uring_syscall(opcode))) {
		req->rw.addr = (__u64)memory;
		req->rw.len = length;
	} else {
		req->sr.buf = (__u64)memory;
		req->sr.len = length;
	}
	dt_raw_io_uring_submit_req(&args);
	req->file = descriptors[fd];
	return req;
}

static void complete(struct host_kiocb *req, int res, __u32 flags)
{
	struct bpf_raw_tracepoint_args args = { { (__u64)&ring, (__u64)req } };

	req->res = res;
	req->cqe_flags = flags;
	dt_raw_io_uring_complete(&args);
}

/* A completion of a multishot request that is not its last. */
static void complete_unnamed(__u64 user_data, int res)
{
	struct host_completion cqe = { user_data, res, DT_CQE_MORE };
#if DT_ARGS_URING_COMPLETE == 3
	struct bpf_raw_tracepoint_args args = { { (__u64)&ring, 0, (__u64)&cqe } };
#else
	struct bpf_raw_tracepoint_args args = { { (__u64)&ring, 0, cqe.user_data, cqe.res, cqe.flags } };
#endif

	dt_raw_io_uring_complete(&args);
}

static const struct dt_record *out(int i)
{
	return (const struct dt_record *)host_out[i].data;
}

static const char *payload(int i)
{
	return (const char *)(host_out[i].data + sizeof(struct dt_record));
}

static int n_remembered(void)
{
	int n = 0;

	for (int i = 0; i < DT_MAX_URING; i++)
		n += URING_slots[i].used + URING_SHOTS_slots[i].used;
	return n;
}

static void a_send_becomes_a_record(void)
{
	for (int fixed = 0; fixed < 2; fixed++) {
		reset();
		struct host_kiocb *req = submit(0, DT_URING_SEND, TCP_FD, "hello world", 11, fixed ? DT_SQE_FIXED_FILE : 0);

		socks[TCP_FD].write_seq += 5;
		complete(req, 5, 0);
		CHECK(host_n_out == 1 && out(0)->code == DT_SYSCALL_sendto && out(0)->direction == DT_EGRESS);
		CHECK(out(0)->flags == (DT_RECORD_URING | DT_RECORD_SEQ_VALID | DT_RECORD_FIRST));
		CHECK(out(0)->seq_exit - out(0)->result == 1000 && out(0)->enter_ns < out(0)->exit_ns);
		CHECK(out(0)->payload_len == 5 && !memcmp(payload(0), "hello", 5));
		CHECK(out(0)->tgid == 100 && out(0)->tid == 101 && out(0)->tuple.local_port == 4242);
		CHECK(counter(DT_COUNT_PAYLOAD_CUT) == 0 && !n_remembered());
		check_books();
	}
}

static void a_vector_is_read_when_it_is_submitted(void)
{
	struct dt_iovec iovecs[2] = { { (__u64) "abc", 3 }, { (__u64) "defg", 4 } };
	struct dt_user_msghdr header = { .iovecs = (__u64)iovecs, .n_iovecs = 2 };
	struct host_kiocb *req;

	for (int message = 0; message < 2; message++) {
		reset();
		req = message ? submit(0, DT_URING_SENDMSG, TCP_FD, &header, 1, 0) : submit(0, DT_URING_WRITEV, TCP_FD, iovecs, 2, 0);
		memset(iovecs, 0, sizeof(iovecs));
		memset(&header, 0, sizeof(header));
		complete(req, 6, 0);
		CHECK(host_n_out == 1 && out(0)->payload_len == 6 && !memcmp(payload(0), "abcdef", 6));
		CHECK(out(0)->flags & DT_RECORD_SEQ_AMBIGUOUS); /* the stream has not moved */
		check_books();
		iovecs[0] = (struct dt_iovec){ (__u64) "abc", 3 };
		iovecs[1] = (struct dt_iovec){ (__u64) "defg", 4 };
		header = (struct dt_user_msghdr){ .iovecs = (__u64)iovecs, .n_iovecs = 2 };
	}
}

static void what_moves_nothing_is_counted(void)
{
	struct host_kiocb *req;

	reset();
	complete(submit(0, DT_URING_RECV, TCP_FD, "", 1, 0), 0, 0);
	complete(submit(0, DT_URING_READ, TCP_FD, "", 1, 0), -11, 0);
	CHECK(counter(DT_COUNT_NO_DATA) == 2);
	complete(submit(0, DT_URING_READ, RAW_FD, "", 1, 0), 1, 0);
	CHECK(counter(DT_COUNT_OTHER_SOCKET) == 1);
	complete(submit(0, DT_URING_READ, FILE_FD, "", 1, 0), 1, 0);
	CHECK(counter(DT_COUNT_URING_CALLS) == 3 && host_n_out == 0);
	req = submit(0, DT_URING_RECV, TCP_FD, "", 1, 0);
	req->file = 0;
	complete(req, -9, 0);
	CHECK(counter(DT_COUNT_NO_DATA) == 3 && !n_remembered());
	check_books();
}

static void what_is_not_told_is_interrupted(void)
{
	reset();
	submit(0, DT_URING_RECV, TCP_FD, "", 1, 0);
	submit(0, DT_URING_RECV, TCP_FD, "", 1, 0); /* the same memory: the first one has ended unseen */
	CHECK(counter(DT_COUNT_INTERRUPTED) == 1);
	CONFIG_slots[0].value.socket_fops = 0;
	complete(&reqs[0], 1, 0);
	CHECK(counter(DT_COUNT_INTERRUPTED) == 2 && !n_remembered());
	CONFIG_slots[0].value.socket_fops = FOPS;
	submit(0, DT_URING_RECV, TCP_FD, "", 1, 0);
	CONFIG_slots[0].value.deadline_ns = 1;
	complete(&reqs[0], 1, 0);
	CHECK(counter(DT_COUNT_INTERRUPTED) == 3 && counter(DT_COUNT_LAPSED) == 1);
	check_books();
}

static void a_full_map_is_counted(void)
{
	reset();
	for (int i = 0; i < 5; i++)
		submit(i, DT_URING_RECV, TCP_FD, "", 1, 0);
	CHECK(counter(DT_COUNT_MAP_INSERT_FAILED) == 1);
	check_books();
}

static void a_request_that_is_not_remembered_is_told_by_its_completion(void)
{
	reset();
	struct host_kiocb *req = submit(0, DT_URING_RECV, TCP_FD, "hello", 5, 0);

	URING_slots[0].used = 0;
	complete(req, 5, 0);
	CHECK(host_n_out == 1 && out(0)->flags & DT_RECORD_ENTER_MISSED && out(0)->enter_ns == out(0)->exit_ns);
	CHECK(out(0)->payload_len == 5 && out(0)->flags & DT_RECORD_SEQ_AMBIGUOUS);
	*(__u32 *)(owner + DT_OFF_TASK_TGID) = 200; /* another process's request, completed here */
	complete(req, 5, 0);
	CHECK(host_n_out == 1);
	check_books();
}

static void memory_is_read_in_its_own_process_only(void)
{
	reset();
	struct host_kiocb *req = submit(0, DT_URING_RECV, TCP_FD, "hello", 5, 0);

	host_id = (__u64)300 << 32 | 300;
	complete(req, 5, 0);
	CHECK(host_n_out == 1 && out(0)->payload_len == 0 && out(0)->tgid == 100);
	CHECK(counter(DT_COUNT_URING_NO_PAYLOAD) == 1 && counter(DT_COUNT_PAYLOAD_CUT) == 1);
	host_id = (__u64)100 << 32 | 101;
	complete(submit(0, DT_URING_RECV, TCP_FD, (void *)8, 5, 0), 5, 0);
	CHECK(host_n_out == 2 && out(1)->flags & DT_RECORD_READ_FAULT && counter(DT_COUNT_READ_FAULT) == 1);
	check_books();
}

static void a_descriptor_that_was_replaced_names_the_requests_own_file(void)
{
	reset();
	struct host_kiocb *req = submit(0, DT_URING_RECV, UDP_FD, "hello", 5, 0);

	req->file = descriptors[TCP_FD];
	complete(req, 5, 0);
	CHECK(out(0)->socket == (__u64)&socks[TCP_FD] && out(0)->flags & DT_RECORD_SEQ_AMBIGUOUS);
	check_books();
}

static void a_chosen_buffer_is_read_where_it_is_certain(void)
{
	struct host_async data = { 5, (__u64) "chosen" };

	reset();
	struct host_kiocb *req = submit(0, DT_URING_RECV, TCP_FD, NULL, 0, DT_SQE_BUFFER_SELECT);

	req->sr.buf = (__u64) "abcde";
	complete(req, 5, 0);
	CHECK(out(0)->payload_len == 5 && !memcmp(payload(0), "abcde", 5));
	req = submit(0, DT_URING_RECV, TCP_FD, NULL, 0, DT_SQE_BUFFER_SELECT);
	req->async_data = (__u64)&data; /* of whatever used it before */
	complete(req, 5, 0);
	CHECK(out(1)->payload_len == 0);
	check_books();
}

static struct host_kiocb *submit_shots(int slot, __u64 user_data)
{
	struct host_kiocb *req = &reqs[slot];
	struct bpf_raw_tracepoint_args args = { { (__u64)req } };

	*req = (struct host_kiocb){ .opcode = DT_URING_RECV, .flags = DT_SQE_BUFFER_SELECT, .ctx = (__u64)&ring,
		.task = (__u64)owner, .user_data = user_data, .cqe_flags = TCP_FD };
	req->sr.flags = DT_RECV_MULTISHOT;
	dt_raw_io_uring_submit_req(&args);
	req->file = descriptors[TCP_FD];
	return req;
}

static void every_shot_is_told(void)
{
	struct host_async data = { 5, (__u64) "shots" };

	reset();
	struct host_kiocb *req = submit_shots(0, 7);

	req->async_data = (__u64)&data;
	for (int i = 0; i < 2; i++) {
		socks[TCP_FD].copied_seq += 5;
		complete_unnamed(7, 5);
		CHECK(host_n_out == i + 1 && out(i)->seq_enter == 500u + 5 * i && !(out(i)->flags & DT_RECORD_SEQ_AMBIGUOUS));
		CHECK(out(i)->payload_len == 5 && !memcmp(payload(i), "shots", 5));
	}
	complete_unnamed(8, 5); /* nobody's */
	complete(req, -105, 0);
	CHECK(counter(DT_COUNT_NO_DATA) == 1 && !n_remembered());
	complete_unnamed(7, 5);
	CHECK(host_n_out == 2);
	submit_shots(1, 9);
	submit_shots(2, 9);
	complete_unnamed(9, 5); /* whose of the two? */
	CHECK(host_n_out == 2 && counter(DT_COUNT_ENTER_MISSED) == 1);
	check_books();
}

static void what_is_not_wanted_is_counted(void)
{
	struct dt_socket_info info = { .payload_limit = DT_LIMIT_MUTE, .filter_epoch = 1 };
	__u64 sk = (__u64)&socks[TCP_FD];

	reset();
	SOCKETS.update(&sk, &info);
	complete(submit(0, DT_URING_RECV, TCP_FD, "hello", 5, 0), 5, 0);
	CHECK(counter(DT_COUNT_MUTED) == 1 && counter(DT_COUNT_MUTED_BYTES) == 5 && host_n_out == 0);
	check_books();
}

static void connections_are_begun(void)
{
	struct host_kiocb *req;

	reset();
	socks[TCP_FD].state = DT_TCP_CLOSE;
	req = submit(0, DT_URING_CONNECT, TCP_FD, NULL, 0, 0);
	socks[TCP_FD].state = DT_TCP_ESTABLISHED;
	complete(req, 0, 0);
	CHECK(host_n_out == 1 && out(0)->kind == DT_KIND_CONN && out(0)->code == DT_CONN_CONNECT && out(0)->enter_ns < out(0)->exit_ns);
	complete(submit(0, DT_URING_ACCEPT, RAW_FD, NULL, 0, 0), TCP_FD, 0);
	CHECK(host_n_out == 2 && out(1)->code == DT_CONN_ACCEPT && !n_remembered());
	req = submit(0, DT_URING_ACCEPT, RAW_FD, NULL, 0, 0);
	req->sr.slot = 3; /* into the ring's own table: there is no descriptor */
	complete(req, 0, 0);
	CHECK(host_n_out == 2 && counter(DT_COUNT_CONN_EMITTED) == 2 && counter(DT_COUNT_URING_CALLS) == 0);
}

int main(void)
{
	a_send_becomes_a_record();
	a_vector_is_read_when_it_is_submitted();
	what_moves_nothing_is_counted();
	what_is_not_told_is_interrupted();
	a_full_map_is_counted();
	a_request_that_is_not_remembered_is_told_by_its_completion();
	memory_is_read_in_its_own_process_only();
	a_descriptor_that_was_replaced_names_the_requests_own_file();
	a_chosen_buffer_is_read_where_it_is_certain();
	every_shot_is_told();
	what_is_not_wanted_is_counted();
	connections_are_begun();
	host_forget_out();
	printf("%d failures\n", failures);
	return failures != 0;
}
