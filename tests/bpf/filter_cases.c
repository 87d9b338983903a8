/* Cases for the filters as ordinary C. Built by test_filter.py: host.h, the flattened filter, then this file. */

#define TGID 100u
#define CHECK(condition) \
	do { \
		if (!(condition)) { \
			failures++; \
			printf("%s:%d: %s\n", __func__, __LINE__, #condition); \
		} \
	} while (0)

static int failures;
static struct host_superblock superblock;
static struct host_inode inode;
static struct host_file executable;
static struct host_memory memory;
static struct dt_config config;

static void reset(void)
{
	memset(PIDS_slots, 0, sizeof(PIDS_slots));
	memset(RULES_COMM_slots, 0, sizeof(RULES_COMM_slots));
	memset(RULES_EXE_slots, 0, sizeof(RULES_EXE_slots));
	memset(RULES_CGROUP_slots, 0, sizeof(RULES_CGROUP_slots));
	memset(RULES_PORT_slots, 0, sizeof(RULES_PORT_slots));
	memset(host_cgroups, 0, sizeof(host_cgroups));
	host_cgroups[0] = 1;
	superblock.device = 8 << 20 | 1;
	inode = (struct host_inode){ 4711, (__u64)&superblock };
	executable = (struct host_file){ .inode = (__u64)&inode };
	memory.executable = (__u64)&executable;
	memset(host_task, 0, sizeof(host_task));
	strcpy(host_task + DT_OFF_TASK_COMM, "shop");
	*(__u64 *)(host_task + DT_OFF_TASK_GROUP_LEADER) = (__u64)host_task;
	*(__u64 *)(host_task + DT_OFF_TASK_MM) = (__u64)&memory;
	config = (struct dt_config){ .filter_epoch = 1 };
}

static void set_pid(__u32 flags)
{
	__u32 tgid = TGID;

	PIDS.update(&tgid, &flags);
}

static void set_comm(const char *name, __u32 rule)
{
	struct dt_comm comm = {};

	memcpy(comm.text, name, strlen(name));
	RULES_COMM.update(&comm, &rule);
	config.rules |= DT_RULES_COMM | (rule == DT_RULE_ALLOW ? DT_RULES_ALLOW_PROCESS : 0);
}

static void set_exe(__u64 number, __u64 device, __u32 rule)
{
	struct dt_file_id id = { number, device };

	RULES_EXE.update(&id, &rule);
	config.rules |= DT_RULES_EXE | (rule == DT_RULE_ALLOW ? DT_RULES_ALLOW_PROCESS : 0);
}

static void set_cgroup(__u64 cgroup, __u32 rule)
{
	RULES_CGROUP.update(&cgroup, &rule);
	config.rules |= DT_RULES_CGROUP | (rule == DT_RULE_ALLOW ? DT_RULES_ALLOW_PROCESS : 0);
}

static void set_port(__u8 last, __u16 port, __u32 rule)
{
	struct dt_endpoint endpoint = { .port = port };

	if (last) {
		endpoint.addr[10] = endpoint.addr[11] = 0xff;
		endpoint.addr[12] = 127;
		endpoint.addr[15] = last;
	}
	RULES_PORT.update(&endpoint, &rule);
	config.rules |= DT_RULES_PORT | (rule == DT_RULE_ALLOW ? DT_RULES_ALLOW_PORT : 0);
}

static void without_rules_the_default_holds(void)
{
	reset();
	CHECK(!dt_verdict(&config, TGID));
	config.all_processes = 1;
	CHECK(dt_verdict(&config, TGID));
}

static void a_process_is_traced_denied_or_neither(void)
{
	reset();
	set_pid(DT_PID_TRACE);
	CHECK(dt_verdict(&config, TGID));
	CHECK(!dt_verdict(&config, TGID + 1));
	config.all_processes = 1;
	set_pid(DT_PID_DENY | DT_PID_TRACE | DT_PID_FOLLOW);
	CHECK(!dt_verdict(&config, TGID));
	CHECK(dt_verdict(&config, TGID + 1));
}

static void deeptrace_is_known_by_its_whole_name(void)
{
	reset();
	config.all_processes = 1;
	set_pid(DT_PID_TRACE);
	set_comm("deeptrace", DT_RULE_ALLOW);
	strcpy(host_task + DT_OFF_TASK_COMM, "deeptrace");
	CHECK(!dt_verdict(&config, TGID));
	strcpy(host_task + DT_OFF_TASK_COMM, "deeptracer");
	CHECK(dt_verdict(&config, TGID));
	strcpy(host_task + DT_OFF_TASK_COMM, "deeptrac");
	CHECK(dt_verdict(&config, TGID));
}

static void what_stands_behind_a_short_name_is_no_part_of_it(void)
{
	reset();
	set_comm("sh", DT_RULE_ALLOW);
	memcpy(host_task + DT_OFF_TASK_COMM, "sh\0p", 5);
	CHECK(dt_verdict(&config, TGID));
}

static void each_kind_allows_and_denies(void)
{
	for (int kind = 0; kind < 3; kind++)
		for (__u32 rule = DT_RULE_ALLOW; rule <= DT_RULE_DENY; rule++)
			for (int matches = 0; matches < 2; matches++) {
				reset();
				config.all_processes = 1;
				if (kind == 0)
					set_comm(matches ? "shop" : "shop2", rule);
				else if (kind == 1)
					set_exe(4711, matches ? 8 << 20 | 1 : 8 << 20 | 2, rule);
				else
					set_cgroup(matches ? 1 : 2, rule);
				CHECK(dt_verdict(&config, TGID) == ((rule == DT_RULE_ALLOW) == matches));
			}
}

static void a_denial_wins_over_every_allowance(void)
{
	reset();
	config.all_processes = 1;
	set_pid(DT_PID_TRACE);
	set_comm("shop", DT_RULE_ALLOW);
	set_exe(4711, 8 << 20 | 1, DT_RULE_ALLOW);
	CHECK(dt_verdict(&config, TGID));
	set_cgroup(1, DT_RULE_DENY);
	CHECK(!dt_verdict(&config, TGID));
}

static void one_allowance_is_enough(void)
{
	reset();
	set_comm("other", DT_RULE_ALLOW);
	set_exe(1, 1, DT_RULE_ALLOW);
	set_cgroup(99, DT_RULE_ALLOW);
	CHECK(!dt_verdict(&config, TGID));
	host_cgroups[1] = 99;
	CHECK(dt_verdict(&config, TGID));
}

static void a_rule_of_a_cgroup_holds_for_all_below_it(void)
{
	reset();
	for (int i = 0; i < 16; i++)
		host_cgroups[i] = 100 + i;
	for (int i = 0; i < 16; i++) {
		memset(RULES_CGROUP_slots, 0, sizeof(RULES_CGROUP_slots));
		set_cgroup(100 + i, DT_RULE_ALLOW);
		CHECK(dt_verdict(&config, TGID) == (i < DT_MAX_CGROUP_LEVELS || i == 15));
	}
}

static void a_process_that_lost_its_memory_still_ends_as_traced(void)
{
	reset();
	set_exe(4711, 8 << 20 | 1, DT_RULE_ALLOW);
	*(__u64 *)(host_task + DT_OFF_TASK_MM) = 0;
	CHECK(dt_verdict(&config, TGID));
	set_comm("shop", DT_RULE_DENY);
	CHECK(!dt_verdict(&config, TGID));
}

static int is_traced(__u32 tgid, __u32 tid)
{
	return dt_thread_traced(&config, (__u64)tgid << 32 | tid, 0) != NULL;
}

static void an_answer_holds_until_the_epoch_changes(void)
{
	reset();
	memset(THREADS_slots, 0, sizeof(THREADS_slots));
	set_pid(DT_PID_TRACE);
	CHECK(is_traced(TGID, 1));
	set_pid(DT_PID_DENY);
	CHECK(is_traced(TGID, 1));
	config.filter_epoch++;
	CHECK(!is_traced(TGID, 1));
	set_pid(DT_PID_TRACE);
	CHECK(!is_traced(TGID, 1));
	CHECK(!is_traced(TGID + 1, 1)); /* the number of an old thread */
}

static void another_name_or_cgroup_is_judged_at_the_next_call(void)
{
	struct bpf_raw_tracepoint_args rename = { { (__u64)host_task } }, attach = { { 0, 0, (__u64)host_task } };

	reset();
	memset(THREADS_slots, 0, sizeof(THREADS_slots));
	*(__u32 *)(host_task + DT_OFF_TASK_PID) = 1;
	config.all_processes = 1;
	CHECK(is_traced(TGID, 1));
	dt_raw_task_rename(&rename);
	strcpy(host_task + DT_OFF_TASK_COMM, "deeptrace");
	CHECK(!is_traced(TGID, 1));
	strcpy(host_task + DT_OFF_TASK_COMM, "shop");
	CHECK(!is_traced(TGID, 1));
	dt_raw_cgroup_attach_task(&attach);
	CHECK(is_traced(TGID, 1));
	*(__u32 *)(host_task + DT_OFF_TASK_PID) = 2; /* of which nothing is known */
	dt_raw_task_rename(&rename);
}

static int port_verdict(__u16 local, __u16 peer)
{
	struct dt_quintuple tuple = { .local_port = local, .peer_port = peer };

	tuple.local_addr[10] = tuple.local_addr[11] = tuple.peer_addr[10] = tuple.peer_addr[11] = 0xff;
	tuple.local_addr[12] = tuple.peer_addr[12] = 127;
	tuple.local_addr[15] = 1;
	tuple.peer_addr[15] = 2;
	return dt_port_verdict(&config, &tuple);
}

static void ports_count_at_both_ends(void)
{
	reset();
	CHECK(port_verdict(1, 2));
	set_port(0, 80, DT_RULE_DENY);
	CHECK(!port_verdict(80, 2));
	CHECK(!port_verdict(1, 80));
	CHECK(port_verdict(1, 2));
	set_port(0, 90, DT_RULE_ALLOW);
	CHECK(port_verdict(90, 2));
	CHECK(port_verdict(1, 90));
	CHECK(!port_verdict(90, 80));
	CHECK(!port_verdict(1, 2));
	CHECK(!port_verdict(0, 0)); /* a unix stream, where only ports are allowed */
}

static void an_address_narrows_the_rule_of_a_port(void)
{
	reset();
	set_port(1, 4417, DT_RULE_DENY);
	CHECK(!port_verdict(4417, 5));
	CHECK(port_verdict(5, 4417)); /* at another address */
	set_port(2, 4417, DT_RULE_DENY);
	CHECK(!port_verdict(5, 4417));
}

int main(void)
{
	without_rules_the_default_holds();
	a_process_is_traced_denied_or_neither();
	deeptrace_is_known_by_its_whole_name();
	what_stands_behind_a_short_name_is_no_part_of_it();
	each_kind_allows_and_denies();
	a_denial_wins_over_every_allowance();
	one_allowance_is_enough();
	a_rule_of_a_cgroup_holds_for_all_below_it();
	a_process_that_lost_its_memory_still_ends_as_traced();
	an_answer_holds_until_the_epoch_changes();
	another_name_or_cgroup_is_judged_at_the_next_call();
	ports_count_at_both_ends();
	an_address_narrows_the_rule_of_a_port();
	printf("%d failures\n", failures);
	return failures != 0;
}
