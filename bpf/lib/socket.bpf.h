/* SPDX-License-Identifier: Apache-2.0
 * From a descriptor to its socket, and from a socket to its identity. Reads the kernel's structures at the offsets that
 * the loader found in BTF (DT_OFF_...); never follows a pointer of something that is not a socket. */
#pragma once
#include "dt_records.h"

#define DT_AF_INET 2
#define DT_AF_INET6 10
#define DT_IPPROTO_TCP 6
#define DT_IPPROTO_UDP 17
#define DT_SOCK_RAW 3          /* the one type whose number is the same on every architecture and that must be kept out */
#define DT_TCP_ESTABLISHED 1
#define DT_TCP_SYN_SENT 2
#define DT_TCP_FIN_WAIT1 4
#define DT_TCP_FIN_WAIT2 5
#define DT_TCP_CLOSE 7
#define DT_TCP_CLOSE_WAIT 8
#define DT_TCP_LISTEN 10

#define DT_EARLIER(a, b) ((a) < (b) ? (a) : (b))
#define DT_LATER(a, b) ((a) < (b) ? (b) : (a))

/* Two fields that lie close together are read at once: a read costs 10 ns. They lie far apart on some kernels. */
#define DT_NEAR 64
#define DT_FILE_FIRST DT_EARLIER(DT_OFF_FILE_F_OP, DT_OFF_FILE_PRIVATE_DATA)
#define DT_FILE_SPAN (DT_LATER(DT_OFF_FILE_F_OP, DT_OFF_FILE_PRIVATE_DATA) - DT_FILE_FIRST + 8)
#define DT_FDTABLE_FIRST DT_EARLIER(DT_OFF_FDTABLE_MAX_FDS, DT_OFF_FDTABLE_FD)
#define DT_FDTABLE_SPAN (DT_LATER(DT_OFF_FDTABLE_MAX_FDS, DT_OFF_FDTABLE_FD) - DT_FDTABLE_FIRST + 8)
#define DT_KIND_FIRST DT_EARLIER(DT_OFF_SK_TYPE, DT_OFF_SK_PROTOCOL)
#define DT_KIND_SPAN (DT_LATER(DT_OFF_SK_TYPE, DT_OFF_SK_PROTOCOL) - DT_KIND_FIRST + 2)

/* Bytes of struct sock_common that hold all that is needed. */
#ifdef DT_OFF_SKC_V6_DADDR
#define DT_COMMON_SPAN (DT_LATER(DT_OFF_SKC_NET + 8, DT_LATER(DT_OFF_SKC_V6_DADDR, DT_OFF_SKC_V6_RCV_SADDR) + 16))
#else
#define DT_COMMON_SPAN (DT_OFF_SKC_NET + 8)
#endif
_Static_assert(DT_COMMON_SPAN <= DT_SOCK_COMMON, "this kernel's struct sock_common needs a larger DT_SOCK_COMMON");
_Static_assert(DT_FDTABLE_SPAN <= DT_NEAR && DT_KIND_SPAN <= DT_NEAR, "fields of this kernel lie too far apart");

static __always_inline __u64 dt_kernel_u64(__u64 address)
{
	__u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (const void *)address);
	return value;
}

static __always_inline __u32 dt_kernel_u32(__u64 address)
{
	__u32 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (const void *)address);
	return value;
}

static __always_inline __u16 dt_kernel_u16(__u64 address)
{
	__u16 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (const void *)address);
	return value;
}

/* The open file of a descriptor of the current process; 0 if there is none. */
static __always_inline __u64 dt_file_of(__u32 fd)
{
	__u64 files = dt_kernel_u64((__u64)bpf_get_current_task() + DT_OFF_TASK_FILES);
	__u64 table = dt_kernel_u64(files + DT_OFF_FILES_FDT);
	__u8 raw[DT_FDTABLE_SPAN] __attribute__((aligned(8))) = {};

	if (bpf_probe_read_kernel(raw, sizeof(raw), (const void *)(table + DT_FDTABLE_FIRST)) < 0)
		return 0;
	if (fd >= *(__u32 *)(raw + (DT_OFF_FDTABLE_MAX_FDS - DT_FDTABLE_FIRST)))
		return 0;
	return dt_kernel_u64(*(__u64 *)(raw + (DT_OFF_FDTABLE_FD - DT_FDTABLE_FIRST)) + 8 * (__u64)fd);
}

/* The struct sock behind a descriptor of the current process; 0 if it is not a socket. */
static __always_inline __u64 dt_socket_of(const struct dt_config *config, __u32 fd)
{
	__u64 file = dt_file_of(fd);
	__u64 operations, socket;

	if (!file)
		return 0;
	if (DT_FILE_SPAN <= DT_NEAR) {
		__u8 raw[DT_EARLIER(DT_FILE_SPAN, DT_NEAR)] __attribute__((aligned(8))) = {};

		bpf_probe_read_kernel(raw, sizeof(raw), (const void *)(file + DT_FILE_FIRST));
		operations = *(__u64 *)(raw + (DT_FILE_SPAN <= DT_NEAR ? DT_OFF_FILE_F_OP - DT_FILE_FIRST : 0));
		socket = *(__u64 *)(raw + (DT_FILE_SPAN <= DT_NEAR ? DT_OFF_FILE_PRIVATE_DATA - DT_FILE_FIRST : 0));
	} else {
		operations = dt_kernel_u64(file + DT_OFF_FILE_F_OP);
		socket = dt_kernel_u64(file + DT_OFF_FILE_PRIVATE_DATA);
	}
	if (operations != config->socket_fops)
		return 0;
	return dt_kernel_u64(socket + DT_OFF_SOCKET_SK);
}

/* Copy the common part of a socket; common: DT_SOCK_COMMON bytes, aligned to 8. */
static __always_inline int dt_common_read(__u8 *common, __u64 sk)
{
	return bpf_probe_read_kernel(common, DT_COMMON_SPAN, (const void *)sk);
}

static __always_inline __u16 dt_common_family(const __u8 *common)
{
	return *(const __u16 *)(common + DT_OFF_SKC_FAMILY);
}

static __always_inline __u8 dt_common_state(const __u8 *common)
{
	return common[DT_OFF_SKC_STATE];
}

/* IPPROTO_TCP or IPPROTO_UDP of a socket that is followed, 0 of any other (unix, raw, MPTCP, SCTP ...). */
static __always_inline __u8 dt_l4_of(const __u8 *common, __u64 sk)
{
	__u16 family = dt_common_family(common);
	__u8 raw[DT_KIND_SPAN] __attribute__((aligned(8))) = {};
	__u16 type, protocol;

	if (family != DT_AF_INET && family != DT_AF_INET6)
		return 0;
	bpf_probe_read_kernel(raw, sizeof(raw), (const void *)(sk + DT_KIND_FIRST));
	type = *(__u16 *)(raw + (DT_OFF_SK_TYPE - DT_KIND_FIRST));
	protocol = *(__u16 *)(raw + (DT_OFF_SK_PROTOCOL - DT_KIND_FIRST));
	if (type == DT_SOCK_RAW || (protocol != DT_IPPROTO_TCP && protocol != DT_IPPROTO_UDP))
		return 0;
	return protocol;
}

static __always_inline void dt_v4_mapped(__u8 *address, const __u8 *v4)
{
	*(__u64 *)address = 0;
	*(__u16 *)(address + 8) = 0;
	*(__u16 *)(address + 10) = 0xffff;
	*(__u32 *)(address + 12) = *(const __u32 *)v4;
}

/* A port number, network to host order, on either byte order. */
static __always_inline __u16 dt_port(const __u8 *big_endian)
{
	return (__u16)big_endian[0] << 8 | big_endian[1];
}

/* Fill in who talks to whom. The kernel clears skc_num of a closed socket; inet_sport keeps the local port. */
static __always_inline void dt_tuple_fill(struct dt_quintuple *tuple, const __u8 *common, __u64 sk, __u8 l4_protocol)
{
	__u16 sport;

	tuple->family = dt_common_family(common);
	tuple->l4_protocol = l4_protocol;
	tuple->tcp_state = dt_common_state(common);
	tuple->peer_port = dt_port(common + DT_OFF_SKC_DPORT);
	tuple->local_port = *(const __u16 *)(common + DT_OFF_SKC_NUM);
	if (!tuple->local_port) {
		sport = dt_kernel_u16(sk + DT_OFF_INET_SPORT);
		tuple->local_port = dt_port((const __u8 *)&sport);
	}
#ifdef DT_OFF_SKC_V6_DADDR
	if (tuple->family == DT_AF_INET6) {
		__builtin_memcpy(tuple->peer_addr, common + DT_OFF_SKC_V6_DADDR, 16);
		__builtin_memcpy(tuple->local_addr, common + DT_OFF_SKC_V6_RCV_SADDR, 16);
		return;
	}
#endif
	dt_v4_mapped(tuple->peer_addr, common + DT_OFF_SKC_DADDR);
	dt_v4_mapped(tuple->local_addr, common + DT_OFF_SKC_RCV_SADDR);
}

/* Inode number of the socket's network namespace: each container has its own 127.0.0.1. */
static __always_inline __u32 dt_netns_of(const __u8 *common)
{
	return dt_kernel_u32(*(const __u64 *)(common + DT_OFF_SKC_NET) + DT_OFF_NET_INUM);
}
