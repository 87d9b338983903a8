/* SPDX-License-Identifier: Apache-2.0
 * The log: one JSON line per data call, written to a mapped file that threads, children and programs after exec share. */
#include "truth.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define LINE_BYTES (1 << 20) /* the longest line: a vector of messages as hexadecimal digits */
#define HEADER_BYTES (1 << 20) /* what stands before the text; compare.py knows this number */

struct shared {
	uint64_t used;         /* bytes of text */
	uint32_t ends_used;
	struct end ends[MAX_ENDS];
};
_Static_assert(sizeof(struct shared) <= HEADER_BYTES, "the header holds the ends");

static const char *const CALLS[] = {
	"read", "readv", "recvfrom", "recvmsg", "recvmmsg", "write", "writev", "sendto", "sendmsg", "sendmmsg",
	"sendfile64", "splice", "splice",
};
static const char *const KINDS[] = { "tcp", "udp", "unix", "other", "none" };

static struct shared *shared;
static char *text;
static uint64_t netns;
static __thread char case_name[128];
static __thread char *line;
static __thread size_t line_used;

void die(const char *what)
{
	fprintf(stderr, "conform: %s: %s failed (errno %d)\n", case_name, what, errno);
	_exit(1);
}

uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

void log_open(const char *path)
{
	struct stat namespace;
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	CHECK(fd >= 0 && ftruncate(fd, LOG_BYTES) == 0);
	shared = mmap(NULL, LOG_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(shared != MAP_FAILED);
	close(fd);
	text = (char *)shared + HEADER_BYTES;
	CHECK(stat("/proc/self/ns/net", &namespace) == 0);
	netns = namespace.st_ino;
}

struct end *end_new(int kind, int family, int fd)
{
	uint32_t i = __atomic_fetch_add(&shared->ends_used, 1, __ATOMIC_SEQ_CST);

	CHECK(i < MAX_ENDS);
	shared->ends[i] = (struct end){ .id = i + 1, .fd = fd, .kind = kind, .family = family, .sure = 1 };
	return &shared->ends[i];
}

struct end *end_of(int id)
{
	return &shared->ends[id - 1];
}

static void put(const char *format, ...)
{
	va_list arguments;
	int n;

	va_start(arguments, format);
	n = vsnprintf(line + line_used, LINE_BYTES - line_used, format, arguments);
	va_end(arguments);
	line_used += n;
	CHECK(line_used < LINE_BYTES);
}

static void put_hex(const uint8_t *data, size_t bytes)
{
	static const char digits[] = "0123456789abcdef";
	size_t i;

	CHECK(line_used + 2 * bytes < LINE_BYTES);
	for (i = 0; i < bytes; i++) {
		line[line_used++] = digits[data[i] >> 4];
		line[line_used++] = digits[data[i] & 15];
	}
}

static void line_begin(void)
{
	if (!line)
		line = malloc(LINE_BYTES);
	CHECK(line);
	line_used = 0;
	put("{\"case\":\"%s\",\"pid\":%d,\"tid\":%ld", case_name, getpid(), syscall(SYS_gettid));
}

static void line_end(void)
{
	uint64_t at;

	put("}\n");
	at = __atomic_fetch_add(&shared->used, line_used, __ATOMIC_SEQ_CST);
	CHECK(HEADER_BYTES + at + line_used <= LOG_BYTES);
	memcpy(text + at, line, line_used);
}

void log_case(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(case_name, sizeof(case_name), format, arguments);
	va_end(arguments);
}

void log_fact(const char *name, const char *format, ...)
{
	char value[256];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(value, sizeof(value), format, arguments);
	va_end(arguments);
	line_begin();
	put(",\"fact\":\"%s\",\"value\":%s", name, value);
	line_end();
}

/* An address as the probes write it: 16 bytes, IPv4 mapped, and a port. Unix and unknown addresses stay zero. */
static void address_parts(const struct sockaddr_storage *from, uint8_t *address, uint16_t *port)
{
	const struct sockaddr_in *v4 = (const void *)from;
	const struct sockaddr_in6 *v6 = (const void *)from;

	memset(address, 0, 16);
	*port = 0;
	if (from->ss_family == AF_INET) {
		address[10] = address[11] = 0xff;
		memcpy(address + 12, &v4->sin_addr, 4);
		*port = ntohs(v4->sin_port);
	} else if (from->ss_family == AF_INET6) {
		memcpy(address, &v6->sin6_addr, 16);
		*port = ntohs(v6->sin6_port);
	}
}

/* Ask the socket who it is and with whom it talks. An unconnected one has no peer. */
void end_addresses(struct end *end)
{
	struct sockaddr_storage address;
	socklen_t bytes = sizeof(address);

	memset(&address, 0, sizeof(address));
	CHECK(getsockname(end->fd, (struct sockaddr *)&address, &bytes) == 0);
	address_parts(&address, end->local, &end->local_port);
	bytes = sizeof(address);
	memset(&address, 0, sizeof(address));
	if (getpeername(end->fd, (struct sockaddr *)&address, &bytes) < 0)
		address.ss_family = AF_UNSPEC;
	address_parts(&address, end->peer, &end->peer_port);
}

static void put_address(const char *name, const uint8_t *address, uint16_t port)
{
	put(",\"%s\":[\"", name);
	put_hex(address, 16);
	put("\",%u]", port);
}

/* The first bytes that moved, as they stand in the segments. */
static void put_data(const struct message *m)
{
	size_t left = m->bytes < MAX_DATA ? m->bytes : MAX_DATA, n;
	unsigned i;

	put(",\"data\":\"");
	for (i = 0; i < m->n && left; i++) {
		n = m->iov[i].iov_len < left ? m->iov[i].iov_len : left;
		if ((uint8_t *)m->iov[i].iov_base == unmapped)
			break;
		put_hex(m->iov[i].iov_base, n);
		left -= n;
	}
	put("\",\"segments\":[");
	for (i = 0; i < m->n; i++)
		put(i ? ",%zu" : "%zu", m->iov[i].iov_len);
	put("]");
}

static void put_messages(const struct call *call)
{
	unsigned n = call->result <= 0 ? 0 : IS_MMSG(call->name) ? call->result : 1, i;
	uint8_t address[16];
	uint16_t port;

	put(",\"messages\":[");
	for (i = 0; i < n; i++) {
		put("%s{\"bytes\":%u", i ? "," : "", call->messages[i].bytes);
		put_data(&call->messages[i]);
		if (call->messages[i].sender) {
			put_address("sender", call->messages[i].sender->local, call->messages[i].sender->local_port);
		} else if (call->messages[i].name && call->messages[i].name_bytes) {
			address_parts(call->messages[i].name, address, &port);
			put_address("name", address, port);
		}
		put("}");
	}
	put("]");
}

void log_call(const struct call *call, uint64_t before_ns, uint64_t after_ns)
{
	const struct end *end = call->end;
	int direction = IS_EGRESS(call->name);

	line_begin();
	put(",\"call\":\"%s\",\"direction\":%d,\"end\":%d,\"other\":%d,\"kind\":\"%s\",\"family\":%d", CALLS[call->name], direction,
	    end->id, end->other, KINDS[end->kind], end->family);
	put(",\"before_ns\":%lu,\"after_ns\":%lu,\"result\":%ld,\"errno\":%d,\"flags\":%d,\"restarts\":%u", before_ns, after_ns,
	    call->result, call->error, call->flags, call->restarts);
	put(",\"position\":%lu,\"sure\":%d,\"fresh\":%d,\"netns\":%lu", end->moved[direction], end->sure, end->fresh, netns);
	if (end->has_base)
		put(",\"base\":%u", end->base[direction]);
	put_address("local", end->local, end->local_port);
	put_address("peer", end->peer, end->peer_port);
	put_messages(call);
	line_end();
}

/* The file ends where the text ends. */
void log_close(void)
{
	CHECK(msync(shared, LOG_BYTES, MS_ASYNC) == 0);
}
