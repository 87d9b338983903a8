/* SPDX-License-Identifier: Apache-2.0
 * The record layouts, enums and limits that cross from the kernel to user space: plain C, read by the
 * probes (BCC's clang), by the compiled core (Cython) and, through it, by numpy. The one place where they stand.
 *
 * Rules that make this work: only __u8 .. __s64; padding written out; sizes a multiple of 8; __u8[N], never
 * char[N]; at most one nested struct level (but dt_thread); network byte order only where a name ends in _be.
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
#define DT_BATCH_BYTES 8192    /* of records that may wait on a CPU before they are emitted together: some 25 of 256 B payload */
#define DT_MAX_COUNTERS 64     /* counters.def: 1-63 are the kernel's */

enum dt_kind {
	DT_KIND_DATA = 1,      /* bytes moved by one message of one data syscall (the design's Message) */
	DT_KIND_CONN = 2,      /* a change in a connection's life */
	DT_KIND_PROC = 3,      /* a process forked, executed or exited */
	DT_KIND_LOG = 4,       /* a line of the probes' own log (debug build); payload: dt_log */
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
	DT_PROC_FORK = 1,      /* tgid: the child; parent_tgid: the parent; payload: dt_process */
	DT_PROC_EXEC = 2,      /* payload: dt_process */
	DT_PROC_EXIT = 3,      /* result: exit code as wait(2) gives it; payload: dt_process */
};

enum dt_log_level {
	DT_LOG_ERROR = 1,
	DT_LOG_WARNING = 2,
	DT_LOG_INFO = 3,
	DT_LOG_DEBUG = 4,
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
#define DT_RECORD_COUNTED 0x0100        /* a stream without sequence numbers (unix): seq_enter and seq_exit count its bytes as the
                                         * probes saw them, from 0 at FIRST */
#define DT_RECORD_URING 0x0200          /* an io_uring request: enter_ns is its submission, exit_ns its completion */

/* PIDS values */
#define DT_PID_TRACE 1u     /* trace it */
#define DT_PID_DENY 2u      /* never trace it, whatever else is set */
#define DT_PID_FOLLOW 4u    /* its children inherit this value */
#define DT_PID_OWN 8u       /* trace it although it is DeepTrace's own: the self-test's */

/* The design's Quintuple. Addresses are always 16 bytes; IPv4 stands v4-mapped (::ffff:a.b.c.d). */
struct dt_quintuple {
	__u8 local_addr[16];
	__u8 peer_addr[16];
	__u16 local_port;
	__u16 peer_port;
	__u16 family;          /* AF_INET or AF_INET6, as the socket was made; AF_UNIX: the first 8 bytes of local_addr and peer_addr
	                        * hold the addresses of the two struct sock, in the byte order of the machine; the ports are 0 */
	__u8 l4_protocol;      /* IPPROTO_TCP, IPPROTO_UDP; 0: unix stream */
	__u8 tcp_state;        /* skc_state at enter (CONN: the new state) */
};

/* Two connected sockets of one host are each other's peer; an unconnected datagram socket's peer is the one named in the call. */

/* The fixed header of every record; payload_len bytes of payload follow it in the ring, and zero to seven bytes up to the next
 * multiple of 8, where the next record of the same sample begins.
 * Stream position of a DATA record's first byte: ingress seq_enter, egress seq_exit - result, mod 2^32. */
struct dt_record {
	__u64 enter_ns;        /* CLOCK_MONOTONIC; equals exit_ns for records that are not a call */
	__u64 exit_ns;         /* CLOCK_MONOTONIC; DATA records of one CPU are emitted in this order, and so are all others */
	__u64 socket;          /* address of struct sock: identity of a socket while it is open; 0 for PROC */
	__u64 cpu_count;       /* DATA records of this CPU so far, this one included, or all others: a jump is a lost record */
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
	__u32 calls;           /* data calls so far: the limit is looked up again every DT_LIMIT_EVERY of them */
	__u32 passed[2];       /* per direction: bytes of a stream without sequence numbers, mod 2^32 */
	__u32 filter_epoch;    /* CONFIG.filter_epoch for which DT_SOCKET_IGNORED holds */
	__u32 in_call[2];      /* per direction: calls on a stream without sequence numbers that are under way */
};
#define DT_LIMIT_EVERY 16u
#define DT_LIMIT_DEFAULT 0xffffffffu /* payload_limit: what CONFIG says */
#define DT_LIMIT_MUTE 0xfffffffeu    /* payload_limit: nothing is emitted, only counted */
#define DT_SOCKET_SEEN_INGRESS 1u
#define DT_SOCKET_SEEN_EGRESS 2u
#define DT_SOCKET_FRESH 4u  /* connect or accept was seen */
#define DT_SOCKET_CONNECTED 8u /* its DT_CONN_CONNECT was emitted */

#define DT_SOCKET_IGNORED 16u  /* a port rule denies it */
#define DT_SOCKET_LOST_INGRESS 32u /* bytes passed that were not counted: positions from then on are not certain */
#define DT_SOCKET_LOST_EGRESS 64u

/* What user space wants of one connection (map LIMITS, key: address of struct sock). It holds for the connection of these ports
 * only: the address may be another's by the time it is read. */
struct dt_limit {
	__u32 payload_limit;   /* bytes per call, or DT_LIMIT_MUTE */
	__u16 local_port;
	__u16 peer_port;
};

/* In-flight context of one data call. A thread is in one call at a time, so ingress and egress share it. */
struct dt_inflight {
	__u64 enter_ns;        /* 0: no call in flight */
	__u64 socket;          /* struct sock found at enter */
	__u64 buffer;          /* user address: buffer, iovec array, msghdr or mmsghdr array, by shape */
	__u64 count;           /* bytes, iovecs or messages, by shape */
	__u64 peer;            /* user address of the struct sockaddr of sendto and recvfrom; 0: none */
	struct dt_quintuple tuple;
	__u32 netns;
	__u32 seq_enter;
	__u32 call_flags;      /* MSG_* of the call */
	__u8 syscall;          /* enum dt_syscall */
	__u8 direction;        /* enum dt_direction */
	__u16 flags;           /* DT_CALL_* */
	__u32 peer_room;       /* bytes of struct sockaddr that the call passes (egress) or has room for (ingress) */
	__u32 pad;
};
#define DT_CALL_SHARED 2u   /* on a stream without sequence numbers another call was under way, too */
#define DT_CALL_BLOCKED 1u  /* the call was entered before the probes: `count` and `buffer` are known, `socket` is looked up at exit from
                             * `peer`, which holds the descriptor; until then it is the number of its inode, or 0 */

/* The TCP connection that a thread read or wrote last and of which nothing has to be looked up: its head is used up, it is wanted.
 * It is the same one if the stream goes on where this thread left it. */
struct dt_settled {
	__u64 socket;          /* 0: none */
	__u32 position;        /* the next byte */
	__u32 payload_limit;   /* as in dt_socket_info */
	__u32 calls_left;      /* until it is looked up again all the same */
	__u32 filter_epoch;
};

/* What is known of one thread (map THREADS, index: tid modulo its size; THREADS_MORE, key: tid, when two threads share an index). */
struct dt_thread {
	__u32 tid;             /* whose entry it is; 0: nobody's */
	__u32 tgid;
	__u32 filter_epoch;    /* CONFIG.filter_epoch for which `traced` holds */
	__u16 traced;
	__u16 crowded;         /* another thread of this index is in THREADS_MORE */
	struct dt_inflight call;
	struct dt_settled settled[2]; /* by direction */
};

/* A payload of PROC records, and of CONN connect and accept records: which process it is. */
struct dt_process {
	__u8 comm[DT_COMM_LEN];
	__u64 start_ns;        /* CLOCK_BOOTTIME at which the process began */
	__u64 cgroup;          /* id of its cgroup in the unified hierarchy */
};

/* Payload of a LOG record. */
struct dt_log {
	__u32 message;         /* number of logs.def */
	__u32 level;           /* enum dt_log_level */
	__u64 values[3];
};

/* Records that wait on one CPU (map BATCHES, index: CPU; mapped by the agent, which takes from it what has waited too long).
 * bytes[0..used) are whole records. The probes write bytes, then used; to begin again: used = 0, then generation + 1. */
struct dt_batch {
	__u64 generation;
	__u64 used;            /* bytes */
	__u64 records;         /* that wait */
	__u64 count;           /* DATA records of this CPU so far: cpu_count of the newest */
	__u8 bytes[DT_BATCH_BYTES + 256 + 2 * DT_MAX_PAYLOAD];
};

/* Counters of one CPU (map COUNTERS, index: CPU). */
struct dt_counts {
	__u64 value[DT_MAX_COUNTERS];
};

/* Map CONFIG, one entry. Written by user space; a reload writes it again, nothing is recompiled. */
struct dt_config {
	__u64 socket_fops;     /* file_operations of sockets, learned at start; 0: hooks are not armed */
	__u64 deadline_ns;     /* CLOCK_MONOTONIC: past it the hooks do nothing until it is written again; 0: no deadline */
	__u64 bytes_per_s;     /* bound of one CPU, records with their payload; 0: none */
	__u32 events_per_s;    /* bound of one CPU; 0: none */
	__u32 all_processes;   /* 1: every process that nothing denies; 0: only those that something allows */
	__u32 filter_epoch;    /* another value whenever PIDS or a rule has changed; never 0 while armed */
	__u32 rules;           /* DT_RULES_*: the kinds of rules that there are */
	__u32 payload_bytes;   /* payload limit per syscall after the head */
	__u32 head_bytes;      /* per direction of a connection: first bytes captured whole */
	__u32 batch_bytes;     /* records wait on their CPU until so many bytes have come; 0: each is emitted at once; <= DT_BATCH_BYTES */
	__u32 unix_sockets;    /* 1: unix stream sockets are followed */
	__u32 lapsed;          /* set by the hooks when the deadline passed; user space writes 0 */
	__u32 log_level;       /* enum dt_log_level; 0: nothing (debug build only) */
	__u32 learn_tgid;      /* while socket_fops is 0: this process's sendto teaches it */
	__u32 learn_fd;
};

/* Rules: kinds of the bits of CONFIG.rules, and maps RULES_COMM, RULES_EXE, RULES_CGROUP (which processes) and RULES_PORT (which
 * connections), each key -> DT_RULE_*. A denial of any kind wins; where there is an allowing rule for processes (ports), only what
 * one of them allows is traced. */
#define DT_RULES_COMM 1u
#define DT_RULES_EXE 2u
#define DT_RULES_CGROUP 4u
#define DT_RULES_PORT 8u
#define DT_RULES_ALLOW_PROCESS 16u /* there is an allowing rule for processes */
#define DT_RULES_ALLOW_PORT 32u
#define DT_RULE_ALLOW 1u
#define DT_RULE_DENY 2u

/* Key of RULES_EXE. */
struct dt_file_id {
	__u64 inode;
	__u64 device;          /* the kernel's s_dev: major << 20 | minor */
};

/* Key of RULES_PORT: an end of a connection. */
struct dt_endpoint {
	__u8 addr[16];         /* as in dt_quintuple; all 0: whatever address */
	__u16 port;
	__u8 pad[6];
};

#endif
