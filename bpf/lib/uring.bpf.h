/* SPDX-License-Identifier: Apache-2.0
 * What an io_uring request asks for, as the kernel keeps it (struct io_kiocb), and which bytes it moved. Follows requests that
 * move bytes over sockets; splice, and requests of 32-bit processes with vectors, move theirs unseen. */
#pragma once
#include "message.bpf.h"

/* linux/io_uring.h: enum io_uring_op; the same on every architecture */
#define DT_URING_READV 1
#define DT_URING_WRITEV 2
#define DT_URING_READ_FIXED 4
#define DT_URING_WRITE_FIXED 5
#define DT_URING_SENDMSG 9
#define DT_URING_RECVMSG 10
#define DT_URING_ACCEPT 13
#define DT_URING_CONNECT 16
#define DT_URING_READ 22
#define DT_URING_WRITE 23
#define DT_URING_SEND 26
#define DT_URING_RECV 27
#define DT_URING_SOCKET 45
#define DT_URING_SEND_ZC 47
#define DT_URING_SENDMSG_ZC 48
#define DT_URING_READ_MULTISHOT 49

/* io_uring_sqe.flags, the low bits of io_kiocb.flags */
#define DT_SQE_FIXED_FILE 0x01
#define DT_SQE_BUFFER_SELECT 0x20
/* io_uring_sqe.ioprio, in io_sr_msg.flags */
#define DT_RECV_MULTISHOT 0x02
#define DT_RECVSEND_BUNDLE 0x10
#define DT_SEND_VECTORIZED 0x20
/* io_uring_cqe.flags */
#define DT_CQE_MORE 0x02

#define DT_MSG_CMSG_COMPAT 0x80000000u
#define DT_RECVMSG_OUT 16              /* struct io_uring_recvmsg_out, in front of what a multishot recvmsg received */

/* A request in flight, or one that has just completed. */
struct dt_uring {
	struct dt_inflight call;           /* buffer: 0 when it is not known */
	struct dt_iovec segments[DT_MAX_IOVECS]; /* read at submission: the vector's memory may be used again at once */
	__u64 n_segments;
	__u64 before;                      /* bytes of each result that are not the socket's */
	__u32 tgid;
	__u32 tid;
	__u8 opcode;
	__u8 is_multishot;
	__u8 is_selected;                  /* the kernel chooses a buffer when there is something to put into it */
	__u8 pad[5];
};

struct dt_uring_scratch {
	struct dt_uring uring;
	__u64 copied;
	__u64 fault;
	struct dt_record record;
	__u8 payload[2 * DT_MAX_PAYLOAD]; /* a chunk may be written at any offset below the half of it */
};

/* The enum dt_syscall that does the same, 0 for all other requests. */
static __always_inline __u8 dt_uring_syscall(__u8 opcode)
{
	switch (opcode) {
	case DT_URING_RECV: return DT_SYSCALL_recvfrom;
	case DT_URING_SEND: case DT_URING_SEND_ZC: return DT_SYSCALL_sendto;
	case DT_URING_READ: case DT_URING_READ_FIXED: case DT_URING_READ_MULTISHOT: return DT_SYSCALL_read;
	case DT_URING_WRITE: case DT_URING_WRITE_FIXED: return DT_SYSCALL_write;
	case DT_URING_RECVMSG: return DT_SYSCALL_recvmsg;
	case DT_URING_SENDMSG: case DT_URING_SENDMSG_ZC: return DT_SYSCALL_sendmsg;
	case DT_URING_READV: return DT_SYSCALL_readv;
	case DT_URING_WRITEV: return DT_SYSCALL_writev;
	default: return 0;
	}
}

static __always_inline __u8 dt_uring_direction(__u8 syscall)
{
	return syscall == DT_SYSCALL_sendto || syscall == DT_SYSCALL_write || syscall == DT_SYSCALL_sendmsg ||
	       syscall == DT_SYSCALL_writev ? DT_EGRESS : DT_INGRESS;
}

static __always_inline int dt_uring_is_rw(__u8 syscall)
{
	return syscall == DT_SYSCALL_read || syscall == DT_SYSCALL_readv || syscall == DT_SYSCALL_write || syscall == DT_SYSCALL_writev;
}

/* Where the request's buffer is now: of one buffer what it asks for or was given. */
static __always_inline __u64 dt_uring_buffer(__u64 req, __u8 syscall)
{
	__u64 command = req + DT_OFF_KIOCB_CMD;

	return dt_kernel_u64(command + (dt_uring_is_rw(syscall) ? DT_OFF_RW_ADDR : DT_OFF_SR_BUF));
}

/* The segments of a vector. */
static __always_inline void dt_uring_vector(struct dt_uring *uring, __u64 address, __u64 n)
{
	__u64 bytes = dt_bound((n < DT_MAX_IOVECS ? n : DT_MAX_IOVECS) * sizeof(struct dt_iovec), sizeof(uring->segments));

	uring->call.buffer = 0;
	if (bytes && bpf_probe_read_user(uring->segments, bytes, (const void *)address) == 0)
		uring->n_segments = bytes / sizeof(struct dt_iovec);
}

/* The segments and the peer of a message. */
static __always_inline void dt_uring_message(struct dt_uring *uring)
{
	struct dt_user_msghdr header = {};
	__u64 address = uring->call.buffer;

	uring->call.buffer = 0;
	if (uring->call.call_flags & DT_MSG_CMSG_COMPAT || bpf_probe_read_user(&header, sizeof(header), (const void *)address) < 0)
		return;
	uring->call.peer = header.name;
	uring->call.peer_room = header.name_length;
	if (uring->is_multishot)
		uring->before = DT_RECVMSG_OUT + (__u32)header.name_length + header.control_length;
	else
		dt_uring_vector(uring, header.iovecs, header.n_iovecs);
}

static __always_inline __u8 dt_uring_opcode(__u64 req)
{
	__u8 opcode = 0;

	bpf_probe_read_kernel(&opcode, sizeof(opcode), (const void *)(req + DT_OFF_KIOCB_OPCODE));
	return opcode;
}

/* Whether what the request names is not one buffer. */
static __always_inline int dt_uring_is_vector(const struct dt_uring *uring, __u16 options)
{
	__u8 syscall = uring->call.syscall;

	return syscall == DT_SYSCALL_readv || syscall == DT_SYSCALL_writev || syscall == DT_SYSCALL_recvmsg ||
	       syscall == DT_SYSCALL_sendmsg || (syscall == DT_SYSCALL_sendto && options & DT_SEND_VECTORIZED);
}

/* What the request asks for. `uring` is zero but for what is set here. with_memory: it was submitted just now, by the current
 * thread: its vectors may be read. Returns 0 if it is none that is followed. */
static __always_inline int dt_uring_read(struct dt_uring *uring, __u64 req, int with_memory)
{
	__u64 command = req + DT_OFF_KIOCB_CMD;
	__u32 flags = dt_kernel_u32(req + DT_OFF_KIOCB_FLAGS);
	__u16 options = 0;
	__u8 syscall;

	uring->opcode = dt_uring_opcode(req);
	syscall = dt_uring_syscall(uring->opcode);
	if (!syscall)
		return 0;
	uring->call.syscall = syscall;
	uring->call.direction = dt_uring_direction(syscall);
	uring->call.buffer = dt_uring_buffer(req, syscall);
	uring->is_selected = (flags & DT_SQE_BUFFER_SELECT) != 0;
	uring->is_multishot = uring->opcode == DT_URING_READ_MULTISHOT;
	if (dt_uring_is_rw(syscall)) {
		uring->call.count = dt_kernel_u32(command + DT_OFF_RW_LEN);
	} else {
		uring->call.count = dt_kernel_u32(command + DT_OFF_SR_LEN);
		uring->call.call_flags = dt_kernel_u32(command + DT_OFF_SR_MSG_FLAGS);
		options = dt_kernel_u16(command + DT_OFF_SR_FLAGS);
		if (uring->call.direction == DT_INGRESS && options & DT_RECV_MULTISHOT)
			uring->is_multishot = 1;
	}
	/* A bundle fills several buffers, of which the request shows one. */
	if (options & DT_RECVSEND_BUNDLE)
		uring->is_selected = uring->call.buffer = 0;
	else if (!with_memory)
		uring->call.buffer = dt_uring_is_vector(uring, options) ? 0 : uring->call.buffer;
	else if (syscall == DT_SYSCALL_recvmsg || syscall == DT_SYSCALL_sendmsg)
		dt_uring_message(uring);
	else if (dt_uring_is_vector(uring, options))
		dt_uring_vector(uring, uring->call.buffer, uring->call.count);
	return 1;
}
