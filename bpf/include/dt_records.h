/* SPDX-License-Identifier: Apache-2.0
 * The record layouts, enums and limits that cross from the kernel to user space: plain C, read by the
 * probes (BCC's clang), by the compiled core (Cython) and, through it, by numpy. The one place where they stand.
 *
 * Rules that make this work: only __u8 .. __s64; padding written out; sizes a multiple of 8; __u8[N], never
 * char[N]; at most one nested struct level; network byte order only where a name ends in _be.
 */
#ifndef DT_RECORDS_H
#define DT_RECORDS_H

#ifndef DT_NO_LINUX_TYPES
#include <linux/types.h>
#endif

#define DT_RECORD_VERSION 1

#define DT_MAX_PAYLOAD 16384   /* bytes of payload one record can carry; a power of two, for masks the verifier accepts */
#define DT_MAX_IOVECS 8        /* iovec segments read per message; more are counted as payload_cut */
#define DT_MAX_MESSAGES 16     /* messages read per recvmmsg/sendmmsg; more are counted as message_cut */
#define DT_COMM_LEN 16         /* TASK_COMM_LEN */
#define DT_SOCK_COMMON 104     /* bytes of a socket's common part that are kept; 88 are needed on 5.10 to 6.18 */

enum dt_kind {
	DT_KIND_DATA = 1,      /* bytes moved by one message of one data syscall (the design's Message) */
	DT_KIND_CONN = 2,      /* a change in a connection's life */
	DT_KIND_PROC = 3,      /* a process forked, executed or exited */
};

enum dt_direction {
	DT_INGRESS = 0,
	DT_EGRESS = 1,
};

/* The design's Syscall. Numbers are of this project, not of the kernel: they are the same on every architecture. */
enum dt_syscall {
	DT_SYSCALL_NONE = 0,
#define DT_SYSCALL(number, name, ...) DT_SYSCALL_##name = number,
#include "syscalls.def"
#undef DT_SYSCALL
	DT_SYSCALL_LIMIT = 64,
};

enum dt_conn_event {
	DT_CONN_CONNECT = 1,   /* connect(2) returned 0 or EINPROGRESS: this end is the client; enter_ns/exit_ns of the call */
	DT_CONN_ACCEPT = 2,    /* accept(2) returned: this end is the server */
	DT_CONN_PEER_CLOSED = 3, /* the peer's FIN was processed (TCP_CLOSE_WAIT): no more ingress bytes will come */
	DT_CONN_CLOSED = 4,    /* TCP_CLOSE: result holds -sk_err (-ECONNRESET after a reset), 0 for an orderly end */
};

enum dt_proc_event {
	DT_PROC_FORK = 1,      /* tgid: the child; parent_tgid: the parent; payload: comm */
	DT_PROC_EXEC = 2,      /* payload: comm */
	DT_PROC_EXIT = 3,      /* result: exit code as wait(2) gives it; payload: comm */
};

/* dt_record.flags */
#define DT_RECORD_SEQ_VALID 0x0001      /* seq_enter and seq_exit are a TCP stream's */
#define DT_RECORD_SEQ_AMBIGUOUS 0x0002  /* they do not prove this call's position: never join it as exact */
#define DT_RECORD_PEEK 0x0004           /* MSG_PEEK: the bytes will be read again */
#define DT_RECORD_TRUNCATED 0x0008      /* MSG_TRUNC: bytes were discarded, nothing was written to the buffer */
#define DT_RECORD_READ_FAULT 0x0010     /* part of the payload could not be read from user memory */
#define DT_RECORD_ENTER_MISSED 0x0020   /* no enter context: enter_ns = exit_ns, position from exit alone */
#define DT_RECORD_FIRST 0x0040          /* first record of this socket and direction that the probes saw */
#define DT_RECORD_FRESH 0x0080          /* the probes saw this connection's connect or accept: FIRST is stream offset 0 */

/* PIDS values */
#define DT_PID_TRACE 1u     /* trace it */
#define DT_PID_DENY 2u      /* never trace it, whatever else is set */
#define DT_PID_FOLLOW 4u    /* its children inherit this value */

/* The design's Quintuple. Addresses are always 16 bytes; IPv4 stands v4-mapped (::ffff:a.b.c.d). */
struct dt_quintuple {
	__u8 local_addr[16];
	__u8 peer_addr[16];
	__u16 local_port;
	__u16 peer_port;
	__u16 family;          /* AF_INET or AF_INET6, as the socket was made */
	__u8 l4_protocol;      /* IPPROTO_TCP, IPPROTO_UDP */
	__u8 tcp_state;        /* skc_state at enter (CONN: the new state) */
};

/* The fixed header of every record; payload_len bytes of payload follow it in the ring.
 * Stream position of a DATA record's first byte: ingress seq_enter, egress seq_exit - result, mod 2^32. */
struct dt_record {
	__u64 enter_ns;        /* CLOCK_MONOTONIC; equals exit_ns for records that are not a call */
	__u64 exit_ns;         /* CLOCK_MONOTONIC; records of one CPU are emitted in this order */
	__u64 socket;          /* address of struct sock: identity of a socket while it is open; 0 for PROC */
	__u64 cpu_count;       /* emit attempts on this CPU so far, this one included: a jump is a lost record */
	struct dt_quintuple tuple;
	__u32 netns;           /* inode number of the network namespace */
	__u32 tgid;            /* CONN peer_closed, closed: 0, they happen in whatever process the kernel interrupted */
	__u32 tid;
	__s32 result;          /* DATA: bytes of this message; CONN, PROC: see their enums */
	__u32 payload_len;     /* bytes that follow; <= DT_MAX_PAYLOAD */
	__u32 seq_enter;       /* ingress: copied_seq, egress: write_seq; at enter */
	__u32 seq_exit;        /* the same at exit */
	__u32 parent_tgid;     /* PROC fork only */
	__u16 flags;           /* DT_RECORD_* */
	__u16 cpu;
	__u8 kind;             /* enum dt_kind */
	__u8 code;             /* enum dt_syscall, dt_conn_event or dt_proc_event, by kind */
	__u8 direction;        /* enum dt_direction (DATA) */
	__u8 message_index;    /* position within a recvmmsg/sendmmsg vector; 0 elsewhere */
};

/* The design's SocketInfo: what the probes remember of a socket (map SOCKETS, key: address of struct sock). */
struct dt_socket_info {
	__u32 head_left[2];    /* per direction: bytes of the stream's head still captured whole */
	__u32 payload_limit;   /* bytes per syscall after the head; 0xffffffff: the default of CONFIG */
	__u32 flags;           /* DT_SOCKET_* */
};
#define DT_SOCKET_SEEN_INGRESS 1u
#define DT_SOCKET_SEEN_EGRESS 2u
#define DT_SOCKET_FRESH 4u  /* connect or accept was seen */
#define DT_SOCKET_CONNECTED 8u /* its DT_CONN_CONNECT was emitted */

/* In-flight context of one call (maps ingress and egress, key: tid; the entry is kept between calls). */
struct dt_inflight {
	__u64 enter_ns;        /* 0: no call in flight */
	__u64 socket;          /* struct sock found at enter */
	__u64 buffer;          /* user address: buffer, iovec array, msghdr or mmsghdr array, by shape */
	__u64 count;           /* bytes, iovecs or messages, by shape */
	__u32 seq_enter;
	__u32 call_flags;      /* MSG_* of the call */
	__u16 tcp_state;
	__u16 l4_protocol;
	__u8 syscall;          /* enum dt_syscall */
	__u8 pad[3];
	__u8 sock_common[DT_SOCK_COMMON]; /* the kernel's struct sock_common at enter: addresses, ports, namespace */
};

/* Map CONFIG, one entry. Written by user space; a reload writes it again, nothing is recompiled. */
struct dt_config {
	__u64 socket_fops;     /* file_operations of sockets, learned at start; 0: hooks are not armed */
	__u32 all_processes;   /* 1: every process that PIDS does not deny; 0: only those that PIDS traces */
	__u32 payload_bytes;   /* payload limit per syscall after the head */
	__u32 head_bytes;      /* per direction of a connection: first bytes captured whole */
	__u32 learn_tgid;      /* while socket_fops is 0: this process's sendto teaches it */
	__u32 learn_fd;
	__u32 pad;
};

#endif
