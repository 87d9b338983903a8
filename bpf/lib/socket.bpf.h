/* SPDX-License-Identifier: Apache-2.0
 * From a descriptor to its socket, and from a socket to its identity. Reads the kernel's structures at the offsets that
 * the loader found in BTF (DT_OFF_...); never follows a pointer of something that is not a socket. */
#pragma once
#include "dt_records.h"
#include "read.bpf.h"

#define DT_AF_UNIX 1
#define DT_AF_INET 2
#define DT_AF_INET6 10
#define DT_IPPROTO_UNIX 0
#define DT_IPPROTO_TCP 6
#define DT_IPPROTO_UDP 17
#define DT_SOCK_STREAM 1       /* everywhere but on MIPS */
#define DT_SOCK_RAW 3
#define DT_TCP_ESTABLISHED 1
#define DT_TCP_SYN_SENT 2
#define DT_TCP_FIN_WAIT1 4
#define DT_TCP_FIN_WAIT2 5
#define DT_TCP_CLOSE 7
#define DT_TCP_CLOSE_WAIT 8
#define DT_TCP_LISTEN 10

#define DT_EARLIER(a, b) ((a) < (b) ? (a) : (b))
#define DT_LATER(a, b) ((a) < (b) ? (b) : (a))

/* Bytes of struct sock_common that hold all that is needed: 88 on 5.10 to 6.18. Where reads are calls they are read at once. */
#ifdef DT_OFF_SKC_V6_DADDR
#define DT_COMMON_SPAN (DT_LATER(DT_OFF_SKC_NET + 8, DT_LATER(DT_OFF_SKC_V6_DADDR, DT_OFF_SKC_V6_RCV_SADDR) + 16))
#else
#define DT_COMMON_SPAN (DT_OFF_SKC_NET + 8)
#endif
_Static_assert(DT_COMMON_SPAN <= 128, "this kernel's struct sock_common needs more of the stack");

/* What dt_identity reads at one place and its caller decides about. */
struct dt_identity {
	struct dt_quintuple tuple;
	__u32 netns;
	__u32 followed; /* 0: not a kind of socket that is followed */
};

/* The open file of a descriptor of the current process; 0 if there is none. */
static __always_inline __u64 dt_file_of(__u32 fd)
{
	void *task = dt_current_task();
	void *files = DT_TASK_LOAD(void *, task, DT_OFF_TASK_FILES);
	void *table = DT_TASK_LOAD(void *, files, DT_OFF_FILES_FDT);

	if (fd >= DT_TASK_LOAD(__u32, table, DT_OFF_FDTABLE_MAX_FDS))
		return 0;
	return DT_LOAD(__u64, DT_TYPED(SLOT, DT_TASK_LOAD(__u64, table, DT_OFF_FDTABLE_FD) + 8 * (__u64)fd), 0);
}

/* The struct sock behind an open file; 0 if it is not a socket. */
static __always_inline __u64 dt_socket_of_file(const struct dt_config *config, __u64 address)
{
	void *file = DT_TYPED(FILE, address);
	void *socket;

	if (!address || DT_LOAD(__u64, file, DT_OFF_FILE_F_OP) != config->socket_fops)
		return 0;
	socket = DT_TYPED(SOCKET, DT_LOAD(__u64, file, DT_OFF_FILE_PRIVATE_DATA));
	return DT_LOAD(__u64, socket, DT_OFF_SOCKET_SK);
}

/* The struct sock behind a descriptor of the current process; 0 if it is not a socket. */
static __always_inline __u64 dt_socket_of(const struct dt_config *config, __u32 fd)
{
	return dt_socket_of_file(config, dt_file_of(fd));
}

static __always_inline __u8 dt_tcp_state(__u64 sk)
{
	return DT_LOAD(__u8, DT_TYPED(SOCK, sk), DT_OFF_SKC_STATE);
}

static __always_inline void dt_v4_mapped(__u8 *address, __u32 v4)
{
	*(__u64 *)address = 0;
	*(__u16 *)(address + 8) = 0;
	*(__u16 *)(address + 10) = 0xffff;
	*(__u32 *)(address + 12) = v4;
}

/* A port number, network to host order, on either byte order. */
static __always_inline __u16 dt_port(__u16 big_endian)
{
	const __u8 *bytes = (const __u8 *)&big_endian;

	return (__u16)bytes[0] << 8 | bytes[1];
}

/* Fill in the local end alone; the other is nobody. */
static __always_inline void dt_tuple_without_peer(struct dt_quintuple *tuple, const void *common)
{
#ifdef DT_OFF_SKC_V6_DADDR
	if (tuple->family == DT_AF_INET6) {
		*(__u64 *)tuple->peer_addr = *(__u64 *)(tuple->peer_addr + 8) = 0;
		*(__u64 *)tuple->local_addr = *(const __u64 *)(common + DT_OFF_SKC_V6_RCV_SADDR);
		*(__u64 *)(tuple->local_addr + 8) = *(const __u64 *)(common + DT_OFF_SKC_V6_RCV_SADDR + 8);
		return;
	}
#endif
	dt_v4_mapped(tuple->peer_addr, 0);
	dt_v4_mapped(tuple->local_addr, *(const __u32 *)(common + DT_OFF_SKC_RCV_SADDR));
}

/* Fill in the two ends of an IP socket from its common part, where plain loads work: typed, or copied to the stack. */
static __always_inline void dt_tuple_from(struct dt_quintuple *tuple, const void *common, __u64 sk)
{
	tuple->peer_port = dt_port(*(const __u16 *)(common + DT_OFF_SKC_DPORT));
	tuple->local_port = *(const __u16 *)(common + DT_OFF_SKC_NUM);
	/* The kernel clears skc_num of a closed socket; inet_sport keeps the local port. */
	if (!tuple->local_port)
		tuple->local_port = dt_port(dt_kernel_u16(sk + DT_OFF_INET_SPORT));
	if (tuple->l4_protocol == DT_IPPROTO_UDP && !tuple->peer_port) {
		/* Not connected, or not any more: an IPv6 socket keeps its old peer's address. */
		dt_tuple_without_peer(tuple, common);
		return;
	}
#ifdef DT_OFF_SKC_V6_DADDR
	if (tuple->family == DT_AF_INET6) {
		*(__u64 *)tuple->peer_addr = *(const __u64 *)(common + DT_OFF_SKC_V6_DADDR);
		*(__u64 *)(tuple->peer_addr + 8) = *(const __u64 *)(common + DT_OFF_SKC_V6_DADDR + 8);
		*(__u64 *)tuple->local_addr = *(const __u64 *)(common + DT_OFF_SKC_V6_RCV_SADDR);
		*(__u64 *)(tuple->local_addr + 8) = *(const __u64 *)(common + DT_OFF_SKC_V6_RCV_SADDR + 8);
		return;
	}
#endif
	dt_v4_mapped(tuple->peer_addr, *(const __u32 *)(common + DT_OFF_SKC_DADDR));
	dt_v4_mapped(tuple->local_addr, *(const __u32 *)(common + DT_OFF_SKC_RCV_SADDR));
}

/* Fill in the two ends of a unix stream socket: the addresses of both struct sock. */
static __always_inline int dt_tuple_of_unix(struct dt_quintuple *tuple, __u64 sk)
{
#ifdef DT_OFF_UNIX_PEER
	__u64 peer = dt_kernel_u64(sk + DT_OFF_UNIX_PEER);

	__builtin_memset(tuple->local_addr, 0, 32);
	*(__u64 *)tuple->local_addr = sk;
	*(__u64 *)tuple->peer_addr = peer;
	tuple->local_port = tuple->peer_port = 0;
	return peer != 0;
#else
	return 0;
#endif
}

/* Who talks to whom on a socket: family, protocol, state, both ends, network namespace. followed stays 0 for TCP and UDP over
 * others than IPv4 and IPv6, for raw sockets, and for unix sockets that are no streams or are not wanted. */
static __always_inline void dt_identify(struct dt_identity *id, const struct dt_config *config, __u64 sk)
{
	void *sock = DT_TYPED(SOCK, sk);
	__u16 type = DT_LOAD(__u16, sock, DT_OFF_SK_TYPE), protocol = DT_LOAD(__u16, sock, DT_OFF_SK_PROTOCOL);
#ifdef DT_BTF_CAST
	const void *common = sock;
#else
	__u8 common[DT_COMMON_SPAN] __attribute__((aligned(8))) = {};

	bpf_probe_read_kernel(common, sizeof(common), (const void *)sk);
#endif
	id->followed = 0;
	id->tuple.family = *(const __u16 *)((const void *)common + DT_OFF_SKC_FAMILY);
	id->tuple.l4_protocol = protocol;
	id->tuple.tcp_state = *(const __u8 *)((const void *)common + DT_OFF_SKC_STATE);
	id->netns = DT_LOAD(__u32, DT_TYPED(NET, *(const __u64 *)((const void *)common + DT_OFF_SKC_NET)), DT_OFF_NET_INUM);
	if (id->tuple.family == DT_AF_INET || id->tuple.family == DT_AF_INET6) {
		if (type == DT_SOCK_RAW || (protocol != DT_IPPROTO_TCP && protocol != DT_IPPROTO_UDP))
			return;
		dt_tuple_from(&id->tuple, common, sk);
		id->followed = 1;
	} else if (id->tuple.family == DT_AF_UNIX && type == DT_SOCK_STREAM && config->unix_sockets) {
		id->tuple.l4_protocol = DT_IPPROTO_UNIX;
		id->followed = dt_tuple_of_unix(&id->tuple, sk);
	}
}
