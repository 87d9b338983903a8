/* SPDX-License-Identifier: Apache-2.0
 * Every data call on every transport: plain, vectors of segments, partial results, peeks, truncation. */
#include "truth.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static const size_t SIZES[] = { 1, 2, 64, 255, 256, 1023, 1024, 1025, 1500, 4097, 20000 };
static const unsigned SEGMENTS[] = { 1, 2, 3, 7, 8, 9, 12 };
#define N_OF(array) (sizeof(array) / sizeof((array)[0]))

/* A message of so many bytes in so many segments. */
static long send_shaped(struct end *end, enum call_name name, size_t bytes, unsigned segments, int empties)
{
	uint8_t *data = scratch(bytes);
	struct call call;

	fill(data, bytes);
	call_init(&call, name, end);
	call_add(&call, data, bytes, segments, empties);
	return issue_bytes(&call);
}

static long receive_shaped(struct end *end, enum call_name name, size_t bytes, unsigned segments, int empties, int flags)
{
	struct call call;

	call_init(&call, name, end);
	call.flags = flags;
	call_add(&call, scratch(bytes), bytes, segments, empties);
	return issue_bytes(&call);
}

/* Read until so many bytes of the stream have come. */
static void receive_all(struct end *end, enum call_name name, size_t bytes, unsigned segments, int empties)
{
	long n;

	while (bytes) {
		n = receive_shaped(end, name, bytes, segments, empties, 0);
		CHECK(n > 0);
		bytes -= n;
	}
}

static void move_plain(struct end *from, struct end *to, enum call_name out, enum call_name in)
{
	size_t i;

	for (i = 0; i < N_OF(SIZES); i++) {
		CHECK(send_plain(from, out, SIZES[i], 0) > 0);
		receive_all(to, in, SIZES[i], 1, 0);
	}
}

static void move_segments(struct end *from, struct end *to, enum call_name out, enum call_name in)
{
	size_t i;
	int empties;

	for (empties = 0; empties < 2; empties++) {
		for (i = 0; i < N_OF(SEGMENTS); i++) {
			size_t bytes = 100 + 37 * SEGMENTS[i] * (1 + empties);

			CHECK(send_shaped(from, out, bytes, HAS_VECTOR(out) ? SEGMENTS[i] : 1, HAS_VECTOR(out) && empties) > 0);
			receive_all(to, in, bytes, HAS_VECTOR(in) ? SEGMENTS[i] : 1, HAS_VECTOR(in) && empties);
		}
	}
	/* More segments of one byte than bytes are wanted of them. */
	CHECK(send_shaped(from, out, 20, HAS_VECTOR(out) ? 20 : 1, 0) == 20);
	receive_all(to, in, 20, HAS_VECTOR(in) ? 20 : 1, 0);
}

/* Less than was asked for: more room than bytes, more bytes than room, and a full socket. */
static void move_partly(struct end *from, struct end *to, enum call_name out, enum call_name in, int is_stream)
{
	int small = 4096, flags = fcntl(from->fd, F_GETFL);
	size_t sent = 0;
	long n;

	CHECK(send_plain(from, out, 100, 0) == 100);
	CHECK(receive_shaped(to, in, 3000, HAS_VECTOR(in) ? 3 : 1, 0, 0) == 100);
	if (!is_stream)
		return;
	CHECK(send_plain(from, out, 300, 0) == 300);
	CHECK(receive_plain(to, in, 70, 0) == 70);
	CHECK(receive_shaped(to, in, 130, HAS_VECTOR(in) ? 4 : 1, 0, 0) == 130);
	CHECK(receive_plain(to, in, 1000, 0) == 100);
	CHECK(setsockopt(from->fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)) == 0);
	CHECK(setsockopt(to->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)) == 0);
	CHECK(fcntl(from->fd, F_SETFL, flags | O_NONBLOCK) == 0);
	/* More than a window and a buffer hold together: an older kernel takes 64 KiB whole. */
	while ((n = send_shaped(from, out, 200000, HAS_VECTOR(out) ? 5 : 1, 0)) > 0)
		sent += n;
	CHECK(errno == EAGAIN && sent && sent % 200000);
	CHECK(fcntl(from->fd, F_SETFL, flags) == 0);
	receive_all(to, in, sent, HAS_VECTOR(in) ? 6 : 1, 1 * HAS_VECTOR(in));
}

static void peek(struct end *from, struct end *to, enum call_name out, enum call_name in, int is_stream)
{
	CHECK(send_plain(from, out, 500, 0) == 500);
	CHECK(receive_plain(to, in, 200, MSG_PEEK) == 200);
	CHECK(receive_shaped(to, in, 500, HAS_VECTOR(in) ? 3 : 1, 0, MSG_PEEK) == 500);
	CHECK(receive_plain(to, in, 800, MSG_PEEK | MSG_DONTWAIT) == 500);
	if (is_stream)
		CHECK(receive_plain(to, in, 300, 0) == 300);
	CHECK(receive_plain(to, in, 900, MSG_PEEK) == (is_stream ? 200 : 500));
	CHECK(receive_plain(to, in, 900, 0) == (is_stream ? 200 : 500));
}

/* A stream throws bytes away; a datagram tells its whole length. A peek does either without taking them. */
static void truncate_stream(struct end *from, struct end *to, enum call_name out, enum call_name in, int is_tcp)
{
	CHECK(send_plain(from, out, 700, 0) == 700);
	if (is_tcp) {
		CHECK(receive_plain(to, in, 250, MSG_TRUNC | MSG_PEEK) == 250);
		CHECK(receive_plain(to, in, 250, MSG_TRUNC) == 250);
		CHECK(receive_plain(to, in, 150, 0) == 150);
	} else {
		CHECK(receive_plain(to, in, 400, 0) == 400);
	}
	CHECK(receive_shaped(to, in, 300, HAS_VECTOR(in) ? 2 : 1, 0, is_tcp ? MSG_TRUNC : 0) == 300);
}

static void truncate_datagram(struct end *from, struct end *to, enum call_name out, enum call_name in)
{
	int with_flags = HAS_FLAGS(in);

	CHECK(send_plain(from, out, 700, 0) == 700);
	CHECK(receive_plain(to, in, 300, 0) == 300);
	if (!with_flags)
		return;
	CHECK(send_plain(from, out, 800, 0) == 800);
	CHECK(receive_plain(to, in, 300, MSG_TRUNC | MSG_PEEK) > 0);
	CHECK(receive_shaped(to, in, 300, HAS_VECTOR(in) ? 3 : 1, 0, MSG_TRUNC) > 0);
	CHECK(send_plain(from, out, 9000, 0) == 9000);
	CHECK(receive_shaped(to, in, 5000, HAS_VECTOR(in) ? 12 : 1, 0, MSG_TRUNC) > 0);
}

static void run_pair(enum transport transport, enum call_name out, enum call_name in, const char *name)
{
	struct end *a, *b;

	pair_make(transport, &a, &b);
	log_case("%s/%s/plain", TRANSPORTS[transport], name);
	move_plain(a, b, out, in);
	log_case("%s/%s/segments", TRANSPORTS[transport], name);
	move_segments(b, a, out, in);
	if (HAS_FLAGS(in)) {
		log_case("%s/%s/peek", TRANSPORTS[transport], name);
		peek(a, b, out, in, IS_STREAM(transport));
	}
	log_case("%s/%s/truncated", TRANSPORTS[transport], name);
	if (IS_UDP(transport))
		truncate_datagram(a, b, out, in);
	else
		truncate_stream(b, a, out, in, IS_TCP(transport) && HAS_FLAGS(in));
	log_case("%s/%s/partial", TRANSPORTS[transport], name);
	move_partly(a, b, out, in, IS_STREAM(transport));
	pair_close(a, b);
	/* The very first bytes of a stream are peeked at, or thrown away. */
	if (!HAS_FLAGS(in))
		return;
	log_case("%s/%s/first", TRANSPORTS[transport], name);
	pair_make(transport, &a, &b);
	peek(b, a, out, in, IS_STREAM(transport));
	if (IS_TCP(transport))
		truncate_stream(a, b, out, in, 1);
	pair_close(a, b);
}

void run_matrix(void)
{
	static const char *const names[] = { "write-read", "writev-readv", "sendto-recvfrom", "sendmsg-recvmsg", "sendmmsg-recvmmsg" };
	int transport, i;

	for (transport = 0; transport < N_TRANSPORTS; transport++)
		for (i = 0; i < 5; i++)
			run_pair(transport, CALL_WRITE + i, CALL_READ + i, names[i]);
}
