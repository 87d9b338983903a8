/* SPDX-License-Identifier: Apache-2.0
 * Every data call failing in every way: nothing to read, no such descriptor, bad memory, a peer that is gone. */
#include "truth.h"

#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

/* A call on memory that cannot be touched: as a whole, or from its second segment on. */
static long issue_bad(struct end *end, enum call_name name, int second)
{
	uint8_t *good = scratch(64);
	struct call call;

	fill(good, 64);
	call_init(&call, name, end);
	if (second)
		call_add(&call, good, 64, 1, 0)->n = 2;
	else
		call_add(&call, unmapped, 64, 1, 0);
	if (second)
		call.messages[0].iov[1] = (struct iovec){ unmapped, 64 };
	return issue(&call);
}

/* A call whose list of segments is empty, or cannot be read itself. */
static void bad_vector(struct end *end, enum call_name name)
{
	struct call call;

	call_init(&call, name, end);
	call_add(&call, scratch(8), 8, 1, 0)->n = 0;
	CHECK(issue(&call) <= 1);
	call_init(&call, name, end);
	call_add(&call, scratch(8), 8, 1, 0)->bad = 1;
	CHECK(issue(&call) < 0 && errno == EFAULT);
}

static void on_descriptor(int64_t fd, enum call_name name)
{
	struct end *nothing = end_new(KIND_NONE, 0, -1);
	uint8_t *data = scratch(32);
	struct call call;

	fill(data, 32);
	call_init(&call, name, nothing);
	call_add(&call, data, 32, 1, 0);
	call.fd = fd;
	CHECK(issue(&call) < 0 && errno == EBADF);
}

static void memory_errors(enum transport transport, enum call_name out, enum call_name in)
{
	struct end *a, *b;

	pair_make(transport, &a, &b);
	issue_bad(a, out, 0);
	CHECK(errno == EFAULT);
	if (HAS_VECTOR(out))
		issue_bad(a, out, 1);
	bad_vector(a, HAS_VECTOR(out) ? out : CALL_WRITEV);
	/* What a failed vector left behind is not of interest: a new pair for the other direction. */
	pair_close(a, b);
	pair_make(transport, &a, &b);
	CHECK(send_plain(a, out, 64, 0) > 0);
	CHECK(issue_bad(b, in, 0) < 0 && errno == EFAULT);
	if (IS_STREAM(transport))
		CHECK(receive_plain(b, in, 64, 0) > 0);
	CHECK(send_plain(a, out, 100, 0) > 0);
	if (HAS_VECTOR(in))
		issue_bad(b, in, 1);
	pair_close(a, b);
}

static void no_data_errors(enum transport transport, enum call_name out, enum call_name in)
{
	struct end *a, *b;
	int flags;

	pair_make(transport, &a, &b);
	flags = fcntl(b->fd, F_GETFL);
	CHECK(fcntl(b->fd, F_SETFL, flags | O_NONBLOCK) == 0);
	CHECK(receive_plain(b, in, 100, 0) < 0 && errno == EAGAIN);
	CHECK(fcntl(b->fd, F_SETFL, flags) == 0);
	receive_timeout(b->fd, 10);
	CHECK(receive_plain(b, in, 100, 0) < 0 && errno == EAGAIN);
	if (HAS_FLAGS(in))
		CHECK(receive_plain(b, in, 100, MSG_DONTWAIT | MSG_PEEK) < 0 && errno == EAGAIN);
	/* No room, or no bytes. */
	if (IS_STREAM(transport)) {
		send_plain(a, out, 0, 0);
		CHECK(send_plain(a, out, 10, 0) > 0);
		receive_plain(b, in, 0, 0);
		CHECK(receive_plain(b, in, 10, 0) > 0);
	}
	on_descriptor(INT_MAX, out);
	on_descriptor(1000, in);
	pair_close(a, b);
}

/* Sockets that have no stream: one that was never connected, and one that listens. */
static void without_stream(enum transport transport, enum call_name out, enum call_name in)
{
	struct end *end;
	int i;

	for (i = 0; i < 2; i++) {
		end = end_new(KIND_TCP, transport == TCP4 ? AF_INET : AF_INET6, socket(transport == TCP4 ? AF_INET : AF_INET6, SOCK_STREAM, 0));
		if (i)
			CHECK(listen(end->fd, 1) == 0);
		CHECK(send_plain(end, out, 10, HAS_FLAGS(out) ? MSG_NOSIGNAL : 0) < 0);
		CHECK(receive_plain(end, in, 10, 0) < 0);
		close_end(end);
	}
}

static void end_of_stream(enum transport transport, enum call_name out, enum call_name in)
{
	struct end *a, *b;

	/* The last bytes together with the end, then the end alone, twice. */
	pair_make(transport, &a, &b);
	CHECK(send_plain(a, out, 80, 0) > 0);
	CHECK(shutdown(a->fd, SHUT_WR) == 0);
	CHECK(receive_plain(b, in, 30, 0) > 0);
	CHECK(receive_plain(b, in, 100, 0) > 0);
	receive_plain(b, in, 100, 0);
	receive_plain(b, in, 100, 0);
	/* The other direction goes on; this one is a broken pipe. */
	CHECK(send_plain(b, out, 33, 0) > 0);
	CHECK(receive_plain(a, in, 100, 0) > 0);
	CHECK(send_plain(a, out, 10, HAS_FLAGS(out) ? MSG_NOSIGNAL : 0) < 0 && errno == EPIPE);
	pair_close(a, b);
}

static void reset(enum transport transport, enum call_name out, enum call_name in)
{
	struct end *a, *b;

	/* Bytes that arrived before the reset may be read after it. */
	pair_make(transport, &a, &b);
	CHECK(send_plain(a, out, 50, 0) > 0);
	reset_end(a);
	receive_plain(b, in, 20, 0);
	receive_plain(b, in, 100, 0);
	receive_plain(b, in, 100, 0);
	send_plain(b, out, 10, HAS_FLAGS(out) ? MSG_NOSIGNAL : 0);
	close_end(b);
	/* Unread bytes make the close a reset. */
	pair_make(transport, &a, &b);
	CHECK(send_plain(a, out, 50, 0) > 0);
	CHECK(send_plain(b, out, 50, 0) > 0);
	close_end(a);
	receive_plain(b, in, 100, 0);
	send_plain(b, out, 10, HAS_FLAGS(out) ? MSG_NOSIGNAL : 0);
	close_end(b);
}

void run_errors(void)
{
	int transport, i;

	for (transport = 0; transport < N_TRANSPORTS; transport++) {
		for (i = 0; i < 5; i++) {
			log_case("%s/errors-%d", TRANSPORTS[transport], i);
			memory_errors(transport, CALL_WRITE + i, CALL_READ + i);
			no_data_errors(transport, CALL_WRITE + i, CALL_READ + i);
			if (IS_UDP(transport))
				continue;
			if (IS_TCP(transport))
				without_stream(transport, CALL_WRITE + i, CALL_READ + i);
			end_of_stream(transport, CALL_WRITE + i, CALL_READ + i);
			reset(transport, CALL_WRITE + i, CALL_READ + i);
		}
	}
}
