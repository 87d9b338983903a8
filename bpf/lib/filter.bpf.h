/* SPDX-License-Identifier: Apache-2.0
 * Whose calls are followed, and on which connections. A slow path: thread.bpf.h and remember.bpf.h keep the answers until
 * CONFIG.filter_epoch changes. Kernel threads make no system calls, so nothing needs to keep them out.
 *
 * A denial of any kind wins. Then an allowance of any kind. What no rule speaks of is traced unless something is allowed. */
#pragma once
#include "maps.bpf.h"
#include "read.bpf.h"
#include "rules.bpf.h"

/* DeepTrace's own processes, on whatever node: they give themselves this name before they use a socket. */
static __always_inline int dt_comm_is_own(const struct dt_comm *comm)
{
	__u64 first, own;
	__u16 last, end;

	/* Two numbers: of a comparison of texts the compiler makes a call, and of a loop ten branches. */
	__builtin_memcpy(&first, comm->text, sizeof(first));
	__builtin_memcpy(&last, comm->text + sizeof(first), sizeof(last));
	__builtin_memcpy(&own, "deeptrac", sizeof(own));
	__builtin_memcpy(&end, "e", sizeof(end));
	return first == own && last == end;
}

static __always_inline __u32 dt_comm_rule(struct dt_comm *comm)
{
	__u32 *rule = RULES_COMM.lookup(comm);

	return rule ? *rule : 0;
}

/* The rule of the file that a task executes. One without memory is ending (the kernel took its memory before it told so): its
 * file is not known any more, and a process that was traced must not end unheard. */
static __always_inline __u32 dt_exe_rule(__u64 task)
{
	__u64 memory = dt_kernel_u64(task + DT_OFF_TASK_MM);
	__u64 file = memory ? dt_kernel_u64(memory + DT_OFF_MM_EXE_FILE) : 0;
	__u64 inode = file ? dt_kernel_u64(file + DT_OFF_FILE_INODE) : 0;
	struct dt_file_id id = {};
	__u32 *rule;

	if (!inode)
		return DT_RULE_ALLOW;
	id.inode = dt_kernel_u64(inode + DT_OFF_INODE_INO);
	id.device = dt_kernel_u32(dt_kernel_u64(inode + DT_OFF_INODE_SB) + DT_OFF_SB_DEV);
	rule = RULES_EXE.lookup(&id);
	return rule ? *rule : 0;
}

static __always_inline __u32 dt_cgroup_rule_of(__u64 cgroup)
{
	__u32 *rule = RULES_CGROUP.lookup(&cgroup);

	return rule ? *rule : 0;
}

/* The rules of the current thread's cgroup and of all that it lies in. Where only the first version of cgroups is in use all
 * threads are in the root; user space names the processes in PIDS then. */
static __always_inline __u32 dt_cgroup_rule(void)
{
	__u32 rule = dt_cgroup_rule_of(bpf_get_current_cgroup_id());
	__u64 ancestor;
	int level;

#ifdef __clang__
#pragma clang loop unroll(disable) /* it stands in some 30 programs, twice in most */
#endif
	for (level = 0; level < DT_MAX_CGROUP_LEVELS; level++) {
		ancestor = bpf_get_current_ancestor_cgroup_id(level);
		if (!ancestor)
			break;
		rule |= dt_cgroup_rule_of(ancestor);
	}
	return rule;
}

/* Whether the current thread's calls are followed. tgid: its process, or the child that it is making. */
static __always_inline int dt_verdict(const struct dt_config *config, __u32 tgid)
{
	__u64 task = (__u64)bpf_get_current_task();
	__u64 leader = dt_kernel_u64(task + DT_OFF_TASK_GROUP_LEADER);
	__u32 *flags = PIDS.lookup(&tgid);
	__u32 pid_flags = flags ? *flags : 0, rule = 0;
	struct dt_comm comm = {};

	if (pid_flags & DT_PID_DENY)
		return 0;
	/* As text: kernels before 5.17 leave the end of an older, longer name behind it. */
	bpf_probe_read_kernel_str(comm.text, sizeof(comm.text), (const void *)(leader + DT_OFF_TASK_COMM));
	if (dt_comm_is_own(&comm) && !(pid_flags & DT_PID_OWN))
		return 0;
	if (config->rules & DT_RULES_COMM)
		rule |= dt_comm_rule(&comm);
	if (config->rules & DT_RULES_EXE)
		rule |= dt_exe_rule(task);
	if (config->rules & DT_RULES_CGROUP)
		rule |= dt_cgroup_rule();
	if (rule & DT_RULE_DENY)
		return 0;
	if (pid_flags & DT_PID_TRACE || rule & DT_RULE_ALLOW)
		return 1;
	return config->all_processes && !(config->rules & DT_RULES_ALLOW_PROCESS);
}

static __always_inline __u32 dt_endpoint_rule(struct dt_endpoint *endpoint)
{
	__u32 *rule = RULES_PORT.lookup(endpoint);

	return rule ? *rule : 0;
}

/* The rules of one end of a connection: of its port at whatever address, and of its port at this one. */
static __always_inline __u32 dt_end_rule(const __u8 *addr, __u16 port)
{
	struct dt_endpoint endpoint = { .port = port };
	__u32 rule = dt_endpoint_rule(&endpoint);

	__builtin_memcpy(endpoint.addr, addr, sizeof(endpoint.addr));
	return rule | dt_endpoint_rule(&endpoint);
}

/* Whether a connection is followed, as far as its ports say. */
static __always_inline int dt_port_verdict(const struct dt_config *config, const struct dt_quintuple *tuple)
{
	__u32 rule = 0;

	if (!(config->rules & DT_RULES_PORT))
		return 1;
	/* A unix stream has no ports; what stands in its addresses is no address. */
	if (tuple->local_port)
		rule |= dt_end_rule(tuple->local_addr, tuple->local_port);
	if (tuple->peer_port)
		rule |= dt_end_rule(tuple->peer_addr, tuple->peer_port);
	if (rule & DT_RULE_DENY)
		return 0;
	return rule & DT_RULE_ALLOW || !(config->rules & DT_RULES_ALLOW_PORT);
}
