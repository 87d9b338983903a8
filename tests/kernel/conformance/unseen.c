/* SPDX-License-Identifier: Apache-2.0
 * Bytes that never pass through user memory: sendfile, splice from and to a socket. Their number and time are known. */
#include "truth.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static long issue_unseen(struct end *end, enum call_name name, int other_fd, size_t bytes, int flags)
{
	struct call call;

	call_init(&call, name, end);
	call.other_fd = other_fd;
	call.flags = flags;
	call_add(&call, unmapped, bytes, 1, 0);
	return issue(&call);
}

static void files_to(enum transport transport)
{
	FILE *file = tmpfile();
	struct end *a, *b;
	long n;

	pair_make(transport, &a, &b);
	log_case("%s/sendfile", TRANSPORTS[transport]);
	CHECK(file && ftruncate(fileno(file), 6000) == 0);
	CHECK(issue_unseen(a, CALL_SENDFILE, fileno(file), 5000, 0) == 5000);
	for (n = 0; n < 5000;)
		n += receive_plain(b, CALL_READ, 8000, 0);
	CHECK(issue_unseen(a, CALL_SENDFILE, fileno(file), 5000, 0) == 1000);
	CHECK(receive_plain(b, CALL_RECVFROM, 8000, 0) > 0);
	CHECK(issue_unseen(a, CALL_SENDFILE, fileno(file), 5000, 0) == 0);
	/* Bytes by copy after bytes by file. */
	CHECK(send_plain(a, CALL_WRITE, 99, 0) == 99);
	CHECK(receive_plain(b, CALL_READ, 100, 0) == 99);
	CHECK(issue_unseen(a, CALL_SENDFILE, -1, 5000, 0) < 0 && errno == EBADF);
	fclose(file);
	pair_close(a, b);
}

static void pipes_between(enum transport transport)
{
	struct end *a, *b;
	int fds[2];

	pair_make(transport, &a, &b);
	log_case("%s/splice", TRANSPORTS[transport]);
	CHECK(pipe(fds) == 0);
	CHECK(send_plain(a, CALL_WRITE, 700, 0) == 700);
	CHECK(issue_unseen(b, CALL_SPLICE_IN, fds[1], 300, 0) == 300);
	CHECK(issue_unseen(b, CALL_SPLICE_IN, fds[1], 4000, 0) == 400);
	receive_timeout(b->fd, 10);
	CHECK(issue_unseen(b, CALL_SPLICE_IN, fds[1], 4000, 0) < 0 && errno == EAGAIN);
	CHECK(issue_unseen(b, CALL_SPLICE_OUT, fds[0], 700, 0) == 700);
	CHECK(receive_plain(a, CALL_READ, 800, 0) == 700);
	CHECK(send_plain(a, CALL_WRITE, 70, 0) == 70);
	CHECK(receive_plain(b, CALL_READ, 100, 0) == 70);
	close(fds[0]);
	close(fds[1]);
	pair_close(a, b);
}

/* A file as one datagram. */
static void file_as_datagram(enum transport transport)
{
	FILE *file = tmpfile();
	struct end *a, *b;

	pair_make(transport, &a, &b);
	log_case("%s/sendfile", TRANSPORTS[transport]);
	CHECK(file && ftruncate(fileno(file), 600) == 0);
	CHECK(issue_unseen(a, CALL_SENDFILE, fileno(file), 600, 0) == 600);
	CHECK(receive_plain(b, CALL_READ, 8000, 0) == 600);
	fclose(file);
	pair_close(a, b);
}

/* From a pipe to a pipe: no socket at all. */
static void pipes_only(void)
{
	struct end *nothing = end_new(KIND_NONE, 0, -1), *a, *b;
	int from[2], to[2];

	log_case("none/splice");
	pair_make(UNIX_STREAM, &a, &b);
	CHECK(pipe(from) == 0 && pipe(to) == 0);
	CHECK(send_plain(a, CALL_WRITE, 40, 0) == 40);
	CHECK(issue_unseen(b, CALL_SPLICE_IN, from[1], 40, 0) == 40);
	nothing->fd = to[1];
	CHECK(issue_unseen(nothing, CALL_SPLICE_OUT, from[0], 40, 0) == 40);
	pair_close(a, b);
	close(from[0]);
	close(from[1]);
	close(to[0]);
	close(to[1]);
}

void run_unseen(void)
{
	int transport;

	for (transport = 0; transport < N_TRANSPORTS; transport++) {
		if (IS_UDP(transport)) {
			file_as_datagram(transport);
			continue;
		}
		files_to(transport);
		pipes_between(transport);
	}
	pipes_only();
}
