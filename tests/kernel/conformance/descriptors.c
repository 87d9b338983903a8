/* SPDX-License-Identifier: Apache-2.0
 * Descriptors that are duplicated, closed, reused, unshared: the socket of a record is the one that the call was on. */
#include "truth.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ROUNDS 150     /* of reuse: each closes and opens the same two numbers */

static long send_on(struct end *end, int fd, enum call_name name, size_t bytes)
{
	uint8_t *data = scratch(bytes);
	struct call call;

	fill(data, bytes);
	call_init(&call, name, end);
	call.fd = fd;
	call_add(&call, data, bytes, 1, 0);
	return issue_bytes(&call);
}

static long receive_on(struct end *end, int fd, enum call_name name, size_t bytes)
{
	struct call call;

	call_init(&call, name, end);
	call.fd = fd;
	call_add(&call, scratch(bytes), bytes, 1, 0);
	return issue_bytes(&call);
}

static void duplicates(enum transport transport)
{
	int a1, a2, a3, b1, high = 900;
	struct rlimit limit = { 2048, 4096 };
	struct end *a, *b;

	pair_make(transport, &a, &b);
	log_case("%s/duplicates", TRANSPORTS[transport]);
	setrlimit(RLIMIT_NOFILE, &limit);
	a1 = dup(a->fd);
	a2 = dup2(a->fd, a1 + 3);
	a3 = dup3(a->fd, a1 + 5, O_CLOEXEC);
	b1 = fcntl(b->fd, F_DUPFD, high);
	CHECK(a1 >= 0 && a2 >= 0 && a3 >= 0 && b1 >= high);
	CHECK(send_on(a, a1, CALL_WRITE, 50) > 0 && receive_on(b, b1, CALL_READ, 50) == 50);
	CHECK(send_on(a, a2, CALL_SENDMSG, 51) > 0 && receive_on(b, b->fd, CALL_RECVMSG, 51) == 51);
	close_end(a);
	CHECK(send_on(a, a3, CALL_SENDTO, 52) > 0 && receive_on(b, b1, CALL_RECVFROM, 52) == 52);
	close_end(b);
	CHECK(send_on(b, b1, CALL_WRITEV, 53) > 0 && receive_on(a, a2, CALL_READV, 53) == 53);
	close(a1);
	close(a2);
	close(a3);
	close(b1);
}

/* The same numbers stand for another pair, of another kind, each time; and for a pipe in between. */
static void reuse(void)
{
	struct end *a, *b, *pipe_end = end_new(KIND_NONE, 0, -1);
	int fds[2], i;

	for (i = 0; i < ROUNDS; i++) {
		pair_make(i * 5 % N_TRANSPORTS, &a, &b);
		log_case("%s/reuse", TRANSPORTS[i * 5 % N_TRANSPORTS]);
		CHECK(send_plain(a, CALL_WRITE + i % 5, 100 + i, 0) > 0);
		CHECK(receive_plain(b, CALL_READ + i % 5, 300, 0) > 0);
		CHECK(send_plain(b, CALL_WRITE + i / 5 % 5, 100 + i, 0) > 0);
		CHECK(receive_plain(a, CALL_READ + i / 5 % 5, 300, 0) > 0);
		pair_close(a, b);
		CHECK(pipe(fds) == 0);
		pipe_end->fd = fds[1];
		CHECK(send_plain(pipe_end, CALL_WRITE + i % 2, 10, 0) == 10);
		pipe_end->fd = fds[0];
		CHECK(receive_plain(pipe_end, CALL_READ + i % 2, 10, 0) == 10);
		CHECK(close(fds[0]) == 0 && close(fds[1]) == 0);
	}
}

/* One number, one open file, three sockets behind it: dup2 puts another one in the place while nobody calls. */
static void replaced(void)
{
	struct end *a[3], *b[3];
	int place = -1, i, round;

	log_case("mixed/replaced");
	for (i = 0; i < 3; i++)
		pair_make(i == 0 ? TCP4 : i == 1 ? UDP6 : TCP6, &a[i], &b[i]);
	place = dup(a[0]->fd);
	for (round = 0; round < 30; round++) {
		i = round % 3;
		CHECK(dup2(a[i]->fd, place) == place);
		CHECK(send_on(a[i], place, CALL_WRITE, 20 + round) > 0);
		CHECK(receive_plain(b[i], CALL_READ, 100, 0) == 20 + round);
	}
	close(place);
	for (i = 0; i < 3; i++)
		pair_close(a[i], b[i]);
}

struct blocked {
	struct end *end;
	enum call_name name;
	size_t bytes;
	int fd, unshare;
	pid_t tid;
	pthread_t thread;
};

static void *block(void *argument)
{
	struct blocked *b = argument;

	log_case("mixed/blocked");
	if (b->unshare)
		CHECK(unshare(CLONE_FILES) == 0);
	__atomic_store_n(&b->tid, syscall(SYS_gettid), __ATOMIC_SEQ_CST);
	if (IS_EGRESS(b->name))
		send_on(b->end, b->fd, b->name, b->bytes);
	else
		receive_on(b->end, b->fd, b->name, b->bytes);
	return NULL;
}

static void block_begin(struct blocked *b)
{
	CHECK(pthread_create(&b->thread, NULL, block, b) == 0);
	while (!__atomic_load_n(&b->tid, __ATOMIC_SEQ_CST))
		usleep(100);
	wait_inside(b->tid, b->name);
}

/* While a thread waits in a read, its number becomes another connection's. */
static void reused_under_a_read(enum transport transport, int by_close)
{
	struct blocked task = { .name = CALL_RECVMSG, .bytes = 200 };
	struct end *a, *b, *c, *d;
	int kept, number;

	log_case("%s/reused-under-a-read-%d", TRANSPORTS[transport], by_close);
	pair_make(transport, &a, &b);
	pair_make(transport == TCP4 ? TCP6 : TCP4, &c, &d);
	number = b->fd;
	kept = dup(number); /* else the close would end the connection */
	task.end = b;
	task.fd = number;
	block_begin(&task);
	if (by_close) {
		close(number);
		CHECK(fcntl(d->fd, F_DUPFD, number) == number);
	} else {
		CHECK(dup2(d->fd, number) == number);
	}
	CHECK(send_plain(a, CALL_WRITE, 123, 0) == 123);
	CHECK(pthread_join(task.thread, NULL) == 0);
	CHECK(send_plain(c, CALL_WRITE, 77, 0) == 77);
	CHECK(receive_on(d, number, CALL_READ, 100) == 77);
	close(number);
	b->fd = kept;
	pair_close(a, b);
	pair_close(c, d);
}

/* The same while a thread waits in a write for room. */
static void reused_under_a_write(enum transport transport)
{
	struct blocked task = { .name = CALL_WRITE, .bytes = 300000 };
	struct end *a, *b, *c, *d;
	int small = 4096, kept, number;

	log_case("%s/reused-under-a-write", TRANSPORTS[transport]);
	pair_make(transport, &a, &b);
	pair_make(UDP4, &c, &d);
	CHECK(setsockopt(a->fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)) == 0);
	number = a->fd;
	kept = dup(number);
	task.end = a;
	task.fd = number;
	block_begin(&task);
	CHECK(dup2(c->fd, number) == number);
	while (b->moved[0] < 300000)
		CHECK(receive_plain(b, CALL_READ, 100000, 0) > 0);
	CHECK(pthread_join(task.thread, NULL) == 0);
	CHECK(send_on(c, number, CALL_WRITE, 31) == 31 && receive_plain(d, CALL_READ, 100, 0) == 31);
	close(number);
	a->fd = kept;
	pair_close(a, b);
	pair_close(c, d);
}

/* Two threads, one process, two tables of descriptors: one number is two connections. */
static void unshared(void)
{
	struct blocked task = { .name = CALL_READ, .bytes = 200, .unshare = 1 };
	struct end *a, *b, *c, *d;

	log_case("mixed/unshared");
	pair_make(TCP4, &a, &b);
	pair_make(TCP6, &c, &d);
	task.end = b;
	task.fd = b->fd;
	block_begin(&task);
	CHECK(dup2(d->fd, b->fd) == b->fd);
	CHECK(send_plain(c, CALL_WRITE, 44, 0) == 44);
	CHECK(receive_on(d, b->fd, CALL_READ, 100) == 44);
	CHECK(send_plain(a, CALL_WRITE, 45, 0) == 45);
	CHECK(pthread_join(task.thread, NULL) == 0);
	CHECK(b->moved[0] == 45);
	pair_close(a, b);
	pair_close(c, d);
}

void run_descriptors(void)
{
	int transport;

	for (transport = 0; transport < N_TRANSPORTS; transport++) {
		duplicates(transport);
		reused_under_a_read(transport, 0);
		reused_under_a_read(transport, 1);
		if (IS_STREAM(transport))
			reused_under_a_write(transport);
	}
	reuse();
	replaced();
	unshared();
}
