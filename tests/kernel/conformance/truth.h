/* SPDX-License-Identifier: Apache-2.0
 * The program that knows the truth: makes data calls and writes down what user space gave, got and knew.
 * Every data call of the traced program goes through issue(), so that the probes' counters can be held to the log;
 * the log itself is mapped memory and costs no call. */
#ifndef TRUTH_H
#define TRUTH_H

#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define MAX_ENDS 4096      /* ends of one run; a case needs two */
#define MAX_SEGMENTS 24    /* iovecs of one message: three times what the probes read */
#define MAX_MESSAGES 24    /* of one vector: half more than the probes read */
#define MAX_DATA 20000     /* bytes of a message that are logged; one record carries 16384 at most */
#define LOG_BYTES (256ull << 20) /* mapped, sparse */
#define RECEIVE_TIMEOUT_MS 5000  /* a receive that never ends is a broken case, not a hanging run */

enum kind { KIND_TCP, KIND_UDP, KIND_UNIX, KIND_OTHER, KIND_NONE }; /* OTHER: sockets not followed; NONE: no socket */

/* One end of a connection as user space knows it. Lives in shared memory: children count on. */
struct end {
	int id, fd, kind, family;
	int other;             /* id of the other end; 0: none */
	int sure;              /* 0: positions of this stream need not be provable (fast open, urgent bytes) */
	int fresh;             /* connect or accept was made by this program */
	int has_base;
	uint32_t base[2];      /* sequence number of the stream's first byte, by direction; from TCP_REPAIR */
	uint64_t moved[2];     /* bytes of the stream so far, by direction */
	uint8_t local[16], peer[16];
	uint16_t local_port, peer_port;
};

enum call_name {
	CALL_READ, CALL_READV, CALL_RECVFROM, CALL_RECVMSG, CALL_RECVMMSG,
	CALL_WRITE, CALL_WRITEV, CALL_SENDTO, CALL_SENDMSG, CALL_SENDMMSG,
	CALL_SENDFILE, CALL_SPLICE_IN, CALL_SPLICE_OUT,
};
#define IS_EGRESS(name) ((name) >= CALL_WRITE && (name) != CALL_SPLICE_IN)
#define HAS_FLAGS(name) ((name) == CALL_RECVFROM || (name) == CALL_RECVMSG || (name) == CALL_RECVMMSG || \
			 (name) == CALL_SENDTO || (name) == CALL_SENDMSG || (name) == CALL_SENDMMSG)
#define HAS_VECTOR(name) ((name) != CALL_READ && (name) != CALL_WRITE && (name) != CALL_RECVFROM && (name) != CALL_SENDTO)
#define IS_MMSG(name) ((name) == CALL_RECVMMSG || (name) == CALL_SENDMMSG)

struct message {
	struct iovec iov[MAX_SEGMENTS];
	unsigned n;
	int bad;               /* the list of segments itself cannot be read */
	struct sockaddr_storage *name; /* NULL: the call carries no address */
	socklen_t name_bytes;
	const struct end *sender; /* where the call had no room for its whole address; else NULL */
	void *control;
	size_t control_bytes;
	uint32_t bytes;        /* moved */
};

struct call {
	enum call_name name;
	struct end *end;
	int64_t fd;            /* -1: the end's own */
	int flags;
	struct message messages[MAX_MESSAGES];
	unsigned n;
	int other_fd;          /* sendfile, splice */
	unsigned restarts;     /* times that the kernel entered this call again after a signal */
	long result;
	int error;
};

/* log.c */
struct end *end_new(int kind, int family, int fd);
struct end *end_of(int id);
void end_addresses(struct end *end);
void log_open(const char *path);
void log_close(void);
void log_case(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_call(const struct call *call, uint64_t before_ns, uint64_t after_ns);
void log_fact(const char *name, const char *format, ...) __attribute__((format(printf, 2, 3)));
uint64_t now_ns(void);
void die(const char *what) __attribute__((noreturn));
#define CHECK(condition) do { if (!(condition)) die(#condition); } while (0)

/* calls.c */
extern uint8_t *unmapped;      /* memory that nobody may touch */
enum edge { EDGE_HEADERS, EDGE_SEGMENTS, EDGE_DATA, EDGE_NAME, N_EDGES };
uint8_t *at_edge(int which, size_t bytes);
void call_init(struct call *call, enum call_name name, struct end *end);
struct message *call_add(struct call *call, uint8_t *data, size_t bytes, unsigned segments, int empties);
long issue(struct call *call);
long issue_bytes(struct call *call);
void fill(uint8_t *data, size_t bytes);
uint8_t *scratch(size_t bytes);
void wait_inside(pid_t tid, enum call_name name);
long send_plain(struct end *end, enum call_name name, size_t bytes, int flags);
long receive_plain(struct end *end, enum call_name name, size_t bytes, int flags);
void close_end(struct end *end);
void reset_end(struct end *end);

/* pairs.c */
/* MAPPED: IPv4 over IPv6 sockets; MIXED: an IPv4 client of an IPv6 server; NAMED: connected by a name, the other is a socketpair. */
enum transport { TCP4, TCP6, TCP_MAPPED, TCP_MIXED, UDP4, UDP6, UDP_MAPPED, UNIX_STREAM, UNIX_NAMED, N_TRANSPORTS };
extern const char *const TRANSPORTS[];
#define IS_TCP(transport) ((transport) <= TCP_MIXED)
#define IS_UDP(transport) ((transport) >= UDP4 && (transport) <= UDP_MAPPED)
#define IS_STREAM(transport) (!IS_UDP(transport))
void pair_make(enum transport transport, struct end **a, struct end **b);
void pair_close(struct end *a, struct end *b);
struct end *udp_end(enum transport transport);
socklen_t loopback(enum transport transport, uint16_t port, struct sockaddr_storage *address);
void end_base(struct end *a, struct end *b);
void receive_timeout(int fd, int ms);

/* one function per group of cases */
void run_matrix(void);
void run_errors(void);
void run_datagrams(void);
void run_vectors(void);
void run_streams(void);
void run_numbers(void);
void run_unseen(void);
void run_memory(void);
void run_descriptors(void);
void run_processes(const char *program, const char *log_path);
void run_resumed(int end_id, int fd);
void run_nothing(void);
void run_storm(void);
void run_unix_storm(void);

#endif
