/* SPDX-License-Identifier: Apache-2.0
 * Makes data calls by their numbers, without the C library in between, and logs each with its time and its bytes. */
#include "truth.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EDGE_BYTES 65536   /* one page of the largest that there are */
#define SCRATCH_BYTES (4 << 20) /* reused in a circle; no case holds more than 1 MiB at once */

uint8_t *unmapped;

static __thread uint8_t *memory;
static __thread size_t memory_used;
static __thread uint64_t state;

uint8_t *scratch(size_t bytes)
{
	uint8_t *found;

	if (!memory) {
		memory = mmap(NULL, SCRATCH_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		CHECK(memory != MAP_FAILED);
	}
	bytes = (bytes + 63) & ~63ul;
	CHECK(bytes <= SCRATCH_BYTES);
	if (memory_used + bytes > SCRATCH_BYTES)
		memory_used = 0;
	found = memory + memory_used;
	memory_used += bytes;
	return found;
}

/* Bytes that occur nowhere else in the run. */
void fill(uint8_t *data, size_t bytes)
{
	size_t i;

	if (!state)
		state = 88172645463325252ull ^ (uint64_t)syscall(SYS_gettid) << 32;
	for (i = 0; i < bytes; i++) {
		if (i % 8 == 0) {
			state ^= state << 13;
			state ^= state >> 7;
			state ^= state << 17;
		}
		data[i] = state >> 8 * (i % 8);
	}
}

void call_init(struct call *call, enum call_name name, struct end *end)
{
	memset(call, 0, sizeof(*call));
	call->name = name;
	call->end = end;
	call->fd = -1;
}

/* One more message of the call, its bytes in so many segments; empties: empty segments before, between and after. */
struct message *call_add(struct call *call, uint8_t *data, size_t bytes, unsigned segments, int empties)
{
	struct message *m = &call->messages[call->n++];
	size_t each = segments ? (bytes + segments - 1) / segments : 0, at = 0, n;
	unsigned i;

	CHECK(call->n <= MAX_MESSAGES && segments + (empties ? 3 : 0) <= MAX_SEGMENTS);
	if (empties)
		m->iov[m->n++] = (struct iovec){ data, 0 };
	for (i = 0; i < segments; i++) {
		n = bytes - at < each ? bytes - at : each;
		m->iov[m->n++] = (struct iovec){ data + at, n };
		at += n;
		if (empties && i == segments / 2)
			m->iov[m->n++] = (struct iovec){ NULL, 0 };
	}
	if (empties)
		m->iov[m->n++] = (struct iovec){ data, 0 };
	return m;
}

/* Memory of so many bytes behind which nothing is mapped: whoever reads more than the call passed is found out. which: of the
 * regions of this thread. */
uint8_t *at_edge(int which, size_t bytes)
{
	static __thread uint8_t *edges[N_EDGES];

	if (!edges[which]) {
		edges[which] = mmap(NULL, 2 * EDGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		CHECK(edges[which] != MAP_FAILED && mprotect(edges[which] + EDGE_BYTES, EDGE_BYTES, PROT_NONE) == 0);
	}
	CHECK(bytes <= EDGE_BYTES);
	return edges[which] + EDGE_BYTES - bytes;
}

/* The list of segments as the call passes it. */
static struct iovec *segments_of(struct message *m)
{
	size_t bytes = m->n * sizeof(struct iovec);

	return m->bad ? (struct iovec *)unmapped : memcpy(at_edge(EDGE_SEGMENTS, bytes), m->iov, bytes);
}

static void header_of(struct message *m, struct msghdr *header)
{
	*header = (struct msghdr){
		.msg_name = m->name, .msg_namelen = m->name_bytes, .msg_iov = m->bad ? (struct iovec *)unmapped : m->iov, .msg_iovlen = m->n,
		.msg_control = m->control, .msg_controllen = m->control_bytes,
	};
}

static long issue_buffer(struct call *call, int64_t fd)
{
	struct message *m = &call->messages[0];

	switch (call->name) {
	case CALL_READ:
		return syscall(SYS_read, fd, m->iov[0].iov_base, m->iov[0].iov_len);
	case CALL_WRITE:
		return syscall(SYS_write, fd, m->iov[0].iov_base, m->iov[0].iov_len);
	case CALL_READV:
		return syscall(SYS_readv, fd, segments_of(m), m->n);
	case CALL_WRITEV:
		return syscall(SYS_writev, fd, segments_of(m), m->n);
	case CALL_RECVFROM:
		return syscall(SYS_recvfrom, fd, m->iov[0].iov_base, m->iov[0].iov_len, call->flags, m->name,
			       m->name ? &m->name_bytes : NULL);
	case CALL_SENDTO:
		return syscall(SYS_sendto, fd, m->iov[0].iov_base, m->iov[0].iov_len, call->flags, m->name, m->name_bytes);
	case CALL_SENDFILE:
		return syscall(SYS_sendfile, fd, call->other_fd, NULL, m->iov[0].iov_len);
	case CALL_SPLICE_IN:
		return syscall(SYS_splice, fd, NULL, call->other_fd, NULL, m->iov[0].iov_len, call->flags);
	default:
		return syscall(SYS_splice, call->other_fd, NULL, fd, NULL, m->iov[0].iov_len, call->flags);
	}
}

static long issue_headers(struct call *call, int64_t fd, struct mmsghdr *headers)
{
	switch (call->name) {
	case CALL_RECVMSG:
		return syscall(SYS_recvmsg, fd, &headers[0].msg_hdr, call->flags);
	case CALL_SENDMSG:
		return syscall(SYS_sendmsg, fd, &headers[0].msg_hdr, call->flags);
	case CALL_RECVMMSG:
		return syscall(SYS_recvmmsg, fd, headers, call->n, call->flags, NULL);
	default:
		return syscall(SYS_sendmmsg, fd, headers, call->n, call->flags);
	}
}

/* What came of the call: bytes of each message, and names that the kernel filled in. */
static void call_settle(struct call *call, const struct mmsghdr *headers)
{
	unsigned i, n = call->result <= 0 ? 0 : IS_MMSG(call->name) ? (unsigned)call->result : 1;

	for (i = 0; i < n; i++) {
		call->messages[i].bytes = IS_MMSG(call->name) ? headers[i].msg_len : (uint32_t)call->result;
		if (headers && !IS_EGRESS(call->name)) {
			call->messages[i].name_bytes = headers[i].msg_hdr.msg_namelen;
			call->messages[i].control_bytes = headers[i].msg_hdr.msg_controllen;
		}
	}
}

/* Make the call, log it, move the end's position on. Returns the result, or -1 with errno set. */
long issue(struct call *call)
{
	int with_headers = call->name == CALL_RECVMSG || call->name == CALL_SENDMSG || IS_MMSG(call->name);
	int64_t fd = call->fd == -1 ? call->end->fd : call->fd;
	size_t bytes = IS_MMSG(call->name) ? call->n * sizeof(struct mmsghdr) : sizeof(struct msghdr);
	struct mmsghdr *headers = with_headers ? (struct mmsghdr *)at_edge(EDGE_HEADERS, bytes) : NULL;
	uint64_t before_ns, after_ns;
	unsigned i;

	if (with_headers)
		memset(headers, 0, bytes);
	for (i = 0; i < call->n && with_headers; i++)
		header_of(&call->messages[i], &headers[i].msg_hdr);
	if (with_headers && call->n == 1)
		headers[0].msg_hdr.msg_iov = segments_of(&call->messages[0]);
	errno = 0;
	before_ns = now_ns();
	call->result = with_headers ? issue_headers(call, fd, headers) : issue_buffer(call, fd);
	call->error = call->result < 0 ? errno : 0;
	after_ns = now_ns();
	call_settle(call, headers);
	if (call->end->kind <= KIND_UDP && !call->end->local_port && call->end->fd >= 0)
		end_addresses(call->end); /* it got its port by this call */
	log_call(call, before_ns, after_ns);
	if (!(call->flags & (MSG_PEEK | MSG_OOB | MSG_ERRQUEUE)) && call->result > 0)
		for (i = 0; i < (IS_MMSG(call->name) ? call->result : 1); i++)
			call->end->moved[IS_EGRESS(call->name)] += call->messages[i].bytes;
	errno = call->error;
	return call->result;
}

/* Make the call; returns the bytes that all its messages moved, or -1 with errno set. */
long issue_bytes(struct call *call)
{
	unsigned i, n = issue(call) <= 0 ? 0 : IS_MMSG(call->name) ? (unsigned)call->result : 1;
	long bytes = 0;

	if (call->result < 0)
		return -1;
	for (i = 0; i < n; i++)
		bytes += call->messages[i].bytes;
	return bytes;
}

/* Wait until a thread, of whatever process, sleeps inside such a call. Asks by pread, which is no data call. */
void wait_inside(pid_t tid, enum call_name name)
{
	static const long numbers[] = {
		SYS_read, SYS_readv, SYS_recvfrom, SYS_recvmsg, SYS_recvmmsg, SYS_write, SYS_writev, SYS_sendto, SYS_sendmsg, SYS_sendmmsg,
	};
	char path[64], state[64];
	int fd, i;

	snprintf(path, sizeof(path), "/proc/%d/syscall", tid);
	fd = open(path, O_RDONLY);
	for (i = 0; i < 50000; i++) {
		memset(state, 0, sizeof(state));
		if (fd < 0 || pread(fd, state, sizeof(state) - 1, 0) <= 0) {
			usleep(30000); /* this kernel does not tell */
			break;
		}
		if (state[0] != 'r' && atol(state) == numbers[name]) /* "running", or the call's number */
			break;
		usleep(200);
	}
	CHECK(i < 50000);
	if (fd >= 0)
		close(fd);
}

/* One message in one piece; as issue_bytes. */
long send_plain(struct end *end, enum call_name name, size_t bytes, int flags)
{
	uint8_t *data = scratch(bytes);
	struct call call;

	fill(data, bytes);
	call_init(&call, name, end);
	call.flags = flags;
	call_add(&call, data, bytes, 1, 0);
	return issue_bytes(&call);
}

long receive_plain(struct end *end, enum call_name name, size_t bytes, int flags)
{
	struct call call;

	call_init(&call, name, end);
	call.flags = flags;
	call_add(&call, scratch(bytes), bytes, 1, 0);
	return issue_bytes(&call);
}

void close_end(struct end *end)
{
	if (end->fd >= 0)
		CHECK(close(end->fd) == 0);
	end->fd = -1;
}

/* End a TCP connection with a reset. */
void reset_end(struct end *end)
{
	struct linger linger = { 1, 0 };

	CHECK(setsockopt(end->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)) == 0);
	close_end(end);
}
