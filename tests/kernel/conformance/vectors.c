/* SPDX-License-Identifier: Apache-2.0
 * Vectors of messages: many, too many, some of them, empty ones, and ones whose memory is bad. */
#include "truth.h"

#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static void add_sent(struct call *call, size_t bytes, unsigned segments, int empties)
{
	uint8_t *data = scratch(bytes);

	fill(data, bytes);
	call_add(call, data, bytes, segments, empties);
}

static long receive_vector(struct end *end, unsigned n, size_t each, unsigned segments, int flags)
{
	struct call call;
	unsigned i;

	call_init(&call, CALL_RECVMMSG, end);
	call.flags = flags;
	for (i = 0; i < n; i++)
		call_add(&call, scratch(each), each, segments, i % 2);
	return issue(&call);
}

static long send_vector(struct end *end, unsigned n, size_t first, unsigned segments)
{
	struct call call;
	unsigned i;

	call_init(&call, CALL_SENDMMSG, end);
	for (i = 0; i < n; i++)
		add_sent(&call, first + i, segments, i % 2);
	return issue(&call);
}

static void sizes(enum transport transport)
{
	static const unsigned counts[] = { 1, 2, 8, 15, 16, 17, 24 };
	struct end *a, *b;
	size_t i;
	long n, got;

	pair_make(transport, &a, &b);
	for (i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		log_case("%s/vector-of-%u", TRANSPORTS[transport], counts[i]);
		CHECK(send_vector(a, counts[i], 100, 1 + i) == counts[i]);
		if (IS_UDP(transport)) {
			CHECK(receive_vector(b, counts[i], 130, 1 + i, 0) == counts[i]);
			continue;
		}
		for (n = counts[i] * 100 + counts[i] * (counts[i] - 1) / 2; n; n -= got) {
			uint64_t before = b->moved[0];

			CHECK(receive_vector(b, counts[i], 70, 1 + i, MSG_WAITFORONE) > 0);
			got = b->moved[0] - before;
			CHECK(got > 0 && got <= n);
		}
	}
	pair_close(a, b);
}

/* Fewer messages than there is room for; a peek at them; the rest of a larger one. */
static void some(enum transport transport)
{
	struct end *a, *b;

	pair_make(transport, &a, &b);
	log_case("%s/vector-some", TRANSPORTS[transport]);
	CHECK(send_vector(a, 5, 50, 2) == 5);
	CHECK(receive_vector(b, 1, 60, 1, MSG_PEEK) == 1);
	CHECK(receive_vector(b, 10, 60, 2, MSG_DONTWAIT) == 5);
	CHECK(receive_vector(b, 10, 60, 2, MSG_DONTWAIT) < 0 && errno == EAGAIN);
	CHECK(send_vector(a, 3, 2000, 2) == 3);
	CHECK(receive_vector(b, 3, 40, 3, MSG_WAITFORONE) == 3);
	if (IS_STREAM(transport))
		CHECK(receive_vector(b, 3, 40, 3, MSG_WAITFORONE | MSG_TRUNC) == 3);
	pair_close(a, b);
}

static void empty_messages(enum transport transport)
{
	struct end *a, *b;
	struct call call;

	pair_make(transport, &a, &b);
	log_case("%s/vector-with-empty", TRANSPORTS[transport]);
	call_init(&call, CALL_SENDMMSG, a);
	add_sent(&call, 30, 1, 0);
	add_sent(&call, 0, 0, 0);
	add_sent(&call, 31, 3, 1);
	add_sent(&call, 0, 2, 1);
	CHECK(issue(&call) == 4);
	call_init(&call, CALL_RECVMMSG, b);
	call_add(&call, scratch(100), 100, 2, 0);
	CHECK(issue(&call) == 1);
	CHECK(receive_vector(b, 4, 80, 1, MSG_DONTWAIT) == (IS_UDP(transport) ? 3 : -1) || !IS_UDP(transport));
	pair_close(a, b);
}

/* The second message is bad: the first one was sent all the same. */
static void bad_second(enum transport transport)
{
	struct end *a, *b;
	struct call call;

	pair_make(transport, &a, &b);
	log_case("%s/vector-with-bad", TRANSPORTS[transport]);
	call_init(&call, CALL_SENDMMSG, a);
	add_sent(&call, 77, 2, 0);
	call_add(&call, unmapped, 10, 1, 0);
	add_sent(&call, 78, 2, 0);
	CHECK(issue(&call) == 1);
	CHECK(receive_plain(b, CALL_READ, 100, 0) == 77);
	call_init(&call, CALL_SENDMMSG, a);
	add_sent(&call, 79, 2, 0);
	call_add(&call, unmapped, 10, 1, 0)->bad = 1;
	CHECK(issue(&call) == 1);
	CHECK(receive_plain(b, CALL_RECVFROM, 100, 0) == 79);
	pair_close(a, b);
}

/* A full socket takes some of the messages, the last one in part. */
static void full(enum transport transport)
{
	struct end *a, *b;
	struct call call;
	int small = 4096, i;
	long n;

	if (!IS_TCP(transport))
		return;
	pair_make(transport, &a, &b);
	log_case("%s/vector-full", TRANSPORTS[transport]);
	CHECK(setsockopt(a->fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)) == 0);
	CHECK(fcntl(a->fd, F_SETFL, O_NONBLOCK) == 0);
	do {
		call_init(&call, CALL_SENDMMSG, a);
		for (i = 0; i < 5; i++)
			add_sent(&call, 19000 + i, 2, 0);
		n = issue(&call);
	} while (n > 0);
	CHECK(errno == EAGAIN);
	pair_close(a, b);
}

/* Descriptors and lengths are 32 bits wide; a program may leave anything above them in its registers. */
static void wide_arguments(enum transport transport)
{
	struct end *a, *b;
	struct call call;
	int i;

	pair_make(transport, &a, &b);
	log_case("%s/wide-arguments", TRANSPORTS[transport]);
	for (i = 0; i < 5; i++) {
		call_init(&call, CALL_WRITE + i, a);
		call.fd = (int64_t)0xdeadbeefull << 32 | (uint32_t)a->fd;
		add_sent(&call, 88, HAS_VECTOR(CALL_WRITE + i) ? 2 : 1, 0);
		CHECK(issue(&call) > 0);
		call_init(&call, CALL_READ + i, b);
		call.fd = (int64_t)0x1234ull << 32 | (uint32_t)b->fd;
		call_add(&call, scratch(100), 100, 1, 0);
		CHECK(issue(&call) > 0);
	}
	pair_close(a, b);
}

void run_vectors(void)
{
	int transport;

	for (transport = 0; transport < N_TRANSPORTS; transport++) {
		sizes(transport);
		some(transport);
		empty_messages(transport);
		bad_second(transport);
		full(transport);
		wide_arguments(transport);
	}
}
