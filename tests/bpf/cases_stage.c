/* The stage of the cases: sockets, files and one traced process, and what the probes said. */

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
	host_missing = NULL;
	memset(PIDS_slots, 0, sizeof(PIDS_slots));
	memset(THREADS_slots, 0, sizeof(THREADS_slots));
	memset(THREADS_MORE_slots, 0, sizeof(THREADS_MORE_slots));
	memset(OWNERS_slots, 0, sizeof(OWNERS_slots));
	memset(BATCHES_slots, 0, sizeof(BATCHES_slots));
	memset(BUCKETS_slots, 0, sizeof(BUCKETS_slots));
	memset(SHEDDING_slots, 0, sizeof(SHEDDING_slots));
	memset(LIMITS_slots, 0, sizeof(LIMITS_slots));
	memset(SOCKETS_slots, 0, sizeof(SOCKETS_slots));
	memset(connecting_slots, 0, sizeof(connecting_slots));
	memset(COUNTERS_slots, 0, sizeof(COUNTERS_slots));
	CONFIG_slots[0].value = (struct dt_config){ .socket_fops = FOPS, .payload_bytes = 100, .filter_epoch = 1 };
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
	return COUNTERS_slots[0].value.value[number];
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
