/* A kernel made of plain structures, in which the flattened probes run as ordinary C: maps, BPF functions, one task with
 * descriptors. Sanitizers see every access that the probes make. */
#include <linux/types.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

/* --- maps: methods as BCC spells them --- */
/* The key of an array, which is a number. */
__attribute__((unused)) static size_t host_index(const void *key, size_t bytes)
{
	__u32 index = 0;

	memcpy(&index, key, bytes < sizeof(index) ? bytes : sizeof(index));
	return index;
}

static const char *host_missing; /* a map in which nothing is found */

#define BPF_TABLE(type, key_t, value_t, name, entries) \
	static struct { int used; key_t key; value_t value; } name##_slots[entries]; \
	static value_t *name##_lookup(key_t *key) \
	{ \
		if (host_missing && !strcmp(host_missing, #name)) \
			return NULL; \
		if (strstr(type, "array")) \
			return host_index(key, sizeof(*key)) < (size_t)(entries) ? &name##_slots[host_index(key, sizeof(*key))].value : NULL; \
		for (size_t i = 0; i < (size_t)(entries); i++) \
			if (name##_slots[i].used && !memcmp(&name##_slots[i].key, key, sizeof(*key))) \
				return &name##_slots[i].value; \
		return NULL; \
	} \
	__attribute__((unused)) static int name##_update(key_t *key, value_t *value) \
	{ \
		value_t *old = name##_lookup(key); \
		if (old) { \
			*old = *value; \
			return 0; \
		} \
		for (size_t i = 0; i < (size_t)(entries); i++) \
			if (!name##_slots[i].used) { \
				name##_slots[i].used = 1; \
				name##_slots[i].key = *key; \
				name##_slots[i].value = *value; \
				return 0; \
			} \
		return -7; \
	} \
	__attribute__((unused)) static int name##_insert(key_t *key, value_t *value) \
	{ \
		return name##_lookup(key) ? -17 : name##_update(key, value); \
	} \
	__attribute__((unused)) static int name##_delete(key_t *key) \
	{ \
		for (size_t i = 0; i < (size_t)(entries); i++) \
			if (name##_slots[i].used && !memcmp(&name##_slots[i].key, key, sizeof(*key))) { \
				name##_slots[i].used = 0; \
				return 0; \
			} \
		return -2; \
	} \
	static struct { \
		value_t *(*lookup)(key_t *); \
		int (*update)(key_t *, value_t *); \
		int (*insert)(key_t *, value_t *); \
		int (*delete)(key_t *); \
	} name __attribute__((unused)) = { name##_lookup, name##_update, name##_insert, name##_delete };

#define BPF_F_TABLE(type, key_t, value_t, name, entries, flags) BPF_TABLE(type, key_t, value_t, name, entries)

#define HOST_MAX_OUT 64
static struct { size_t bytes; __u8 *data; } host_out[HOST_MAX_OUT];
static int host_n_out, host_ring_full;

static int host_submit(void *ctx, void *data, __u64 bytes)
{
	(void)ctx;
	if (host_ring_full || host_n_out == HOST_MAX_OUT)
		return -28;
	host_out[host_n_out].data = malloc(bytes);
	memcpy(host_out[host_n_out].data, data, bytes);
	host_out[host_n_out++].bytes = bytes;
	return 0;
}

static void host_forget_out(void)
{
	while (host_n_out)
		free(host_out[--host_n_out].data);
}

#define BPF_PERF_OUTPUT(name) \
	static struct { int (*perf_submit)(void *, void *, __u64); } name = { host_submit };

/* --- what probes may call --- */
#define HOST_BAD ((__u64)65536) /* addresses below: reading them faults */
static __u64 host_id = (__u64)100 << 32 | 101, host_now = 1000;
static char host_task[128] __attribute__((aligned(8)));
static int host_cpu;

static int host_read(void *to, __u32 bytes, const void *from)
{
	if ((__u64)from < HOST_BAD) {
		memset(to, 0, bytes);
		return -14;
	}
	memcpy(to, from, bytes);
	return 0;
}
static int host_read_text(void *to, __u32 bytes, const void *from)
{
	if ((__u64)from < HOST_BAD)
		return -14;
	return snprintf(to, bytes, "%s", (const char *)from);
}
static __u64 host_cgroups[16]; /* from the root down to the current one */
static __u64 host_cgroup_at(int level)
{
	return level < 16 ? host_cgroups[level] : 0;
}
static __u64 host_cgroup(void)
{
	int level = 0;

	while (level < 15 && host_cgroups[level + 1])
		level++;
	return host_cgroups[level];
}
#define bpf_get_current_cgroup_id host_cgroup
#define bpf_get_current_ancestor_cgroup_id host_cgroup_at
#define bpf_probe_read_kernel_str host_read_text
#define bpf_probe_read_kernel host_read
#define bpf_probe_read_user host_read
#define bpf_get_current_pid_tgid() host_id
#define bpf_get_current_task() ((__u64)host_task)
#define bpf_get_smp_processor_id() host_cpu
#define bpf_ktime_get_ns() (++host_now)
struct bpf_raw_tracepoint_args {
	__u64 args[8];
};

/* --- tracepoints: one structure with every field that some tracepoint has --- */
#define HOST_FIELDS __u64 fd, buf, count, vec, vlen, ubuf, size, msg, mmsg, buff, len, flags, addr, addr_len, out_fd, offset, fd_in, fd_out, usockvec; long ret;
#define HOST_TRACEPOINT(event) struct tracepoint__syscalls__sys_##event { HOST_FIELDS };
#define DT_SYSCALL(number, name, ...) HOST_TRACEPOINT(enter_##name) HOST_TRACEPOINT(exit_##name)
#include "syscalls.def"
#undef DT_SYSCALL
HOST_TRACEPOINT(exit_socket)
HOST_TRACEPOINT(enter_close)
HOST_TRACEPOINT(enter_connect)
HOST_TRACEPOINT(exit_connect)
HOST_TRACEPOINT(exit_accept)
HOST_TRACEPOINT(enter_socketpair)
HOST_TRACEPOINT(exit_socketpair)
HOST_TRACEPOINT(exit_accept4)

/* --- the kernel's structures; HOST_FAR: as on kernels where a file's two fields lie far apart --- */
struct host_sock {
	__u32 daddr, saddr, hash;
	__u16 dport_be, num, family;
	__u8 state, pad0;
	__u64 pad1[3], net;
	__u8 v6_daddr[16], v6_saddr[16];
	__u16 type, protocol;
	__u32 error, write_seq, copied_seq, rcv_nxt;
	__u16 sport_be;
	__u64 unix_peer;
};
struct host_socket { __u64 pad, sk; };
struct host_file {
	__u64 f_op;
#ifdef HOST_FAR
	__u64 pad[20];
#endif
	__u64 private_data, inode;
};
struct host_superblock { __u32 device; };
struct host_inode { __u64 number, superblock; };
struct host_memory { __u64 executable; };
struct host_table { __u32 max_fds, pad; __u64 fd; };
struct host_files { __u64 pad, table; };
struct host_process { __u64 live, group_exit_code; };

#define DT_OFF_TASK_FILES 0
#define DT_OFF_TASK_SIGNAL 8
#define DT_OFF_TASK_PID 16
#define DT_OFF_TASK_TGID 20
#define DT_OFF_TASK_EXIT_CODE 24
#define DT_OFF_TASK_COMM 32
#define DT_OFF_TASK_GROUP_LEADER 48
#define DT_OFF_TASK_MM 56
#define DT_OFF_TASK_CGROUPS 64
#define DT_OFF_TASK_START_BOOTTIME 72
#define DT_OFF_CSS_SET_DFL_CGRP 0
#define DT_OFF_CGROUP_KN 0
#define DT_OFF_KERNFS_ID 0
#define DT_OFF_MM_EXE_FILE offsetof(struct host_memory, executable)
#define DT_OFF_FILE_INODE offsetof(struct host_file, inode)
#define DT_OFF_INODE_INO offsetof(struct host_inode, number)
#define DT_OFF_INODE_SB offsetof(struct host_inode, superblock)
#define DT_OFF_SB_DEV offsetof(struct host_superblock, device)
#define DT_OFF_SIGNAL_LIVE 0
#define DT_OFF_SIGNAL_GROUP_EXIT_CODE 8
#define DT_OFF_FILES_FDT offsetof(struct host_files, table)
#define DT_OFF_FDTABLE_MAX_FDS offsetof(struct host_table, max_fds)
#define DT_OFF_FDTABLE_FD offsetof(struct host_table, fd)
#define DT_OFF_FILE_F_OP offsetof(struct host_file, f_op)
#define DT_OFF_FILE_PRIVATE_DATA offsetof(struct host_file, private_data)
#define DT_OFF_SOCKET_SK offsetof(struct host_socket, sk)
#define DT_OFF_SKC_DADDR offsetof(struct host_sock, daddr)
#define DT_OFF_SKC_RCV_SADDR offsetof(struct host_sock, saddr)
#define DT_OFF_SKC_DPORT offsetof(struct host_sock, dport_be)
#define DT_OFF_SKC_NUM offsetof(struct host_sock, num)
#define DT_OFF_SKC_FAMILY offsetof(struct host_sock, family)
#define DT_OFF_SKC_STATE offsetof(struct host_sock, state)
#define DT_OFF_SKC_NET offsetof(struct host_sock, net)
#define DT_OFF_SKC_V6_DADDR offsetof(struct host_sock, v6_daddr)
#define DT_OFF_SKC_V6_RCV_SADDR offsetof(struct host_sock, v6_saddr)
#define DT_OFF_SK_TYPE offsetof(struct host_sock, type)
#define DT_OFF_SK_PROTOCOL offsetof(struct host_sock, protocol)
#define DT_OFF_SK_ERR offsetof(struct host_sock, error)
#define DT_OFF_UNIX_PEER offsetof(struct host_sock, unix_peer)
#define DT_OFF_INET_SPORT offsetof(struct host_sock, sport_be)
#define DT_OFF_TCP_WRITE_SEQ offsetof(struct host_sock, write_seq)
#define DT_OFF_TCP_COPIED_SEQ offsetof(struct host_sock, copied_seq)
#define DT_OFF_TCP_RCV_NXT offsetof(struct host_sock, rcv_nxt)
#define DT_OFF_NET_INUM 0
#define DT_MAX_PIDS 8
#define DT_MAX_THREADS 4
#define DT_MAX_THREADS_MORE 1
#define DT_MAX_LIMITS 4
#define DT_MAX_CONNECTING 2
#define DT_MAX_SOCKETS 2
#define DT_MAX_CPUS 1
#include "host_uring.h"
