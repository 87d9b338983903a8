/* SPDX-License-Identifier: Apache-2.0
 * Four threads on one TCP socket: two write, two read. Who got which bytes is in the log; where they stand in the stream
 * only a witness outside knows (compare.py takes the packets). */
#include "truth.h"

#include <netinet/tcp.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#define WRITES 1000    /* of each writer */
#define MOST_WRITTEN 200
#define MOST_READ 150

static struct end *from, *to;

static void *write_pieces(void *argument)
{
	unsigned seed = (unsigned)(uintptr_t)argument;
	int i;

	log_case("storm/write");
	for (i = 0; i < WRITES; i++)
		CHECK(send_plain(from, CALL_WRITE + rand_r(&seed) % 5, 1 + rand_r(&seed) % MOST_WRITTEN, 0) > 0);
	return NULL;
}

static void *read_pieces(void *argument)
{
	unsigned seed = (unsigned)(uintptr_t)argument;
	struct call call;
	size_t bytes;
	long got;

	log_case("storm/read");
	do {
		bytes = 1 + rand_r(&seed) % MOST_READ;
		call_init(&call, CALL_READ + rand_r(&seed) % 5, to);
		call_add(&call, scratch(bytes), bytes, 1, 0);
		got = issue_bytes(&call);
		CHECK(got >= 0);
	} while (got);
	return NULL;
}

static void storm(enum transport transport)
{
	pthread_t threads[4];
	uintptr_t i;

	log_case("storm");
	pair_make(transport, &from, &to);
	from->sure = to->sure = 0;
	log_fact("ports", "[%u,%u]", from->local_port, to->local_port);
	for (i = 0; i < 4; i++)
		CHECK(pthread_create(&threads[i], NULL, i % 2 ? read_pieces : write_pieces, (void *)(i + 1)) == 0);
	CHECK(pthread_join(threads[0], NULL) == 0 && pthread_join(threads[2], NULL) == 0);
	close_end(from);
	CHECK(pthread_join(threads[1], NULL) == 0 && pthread_join(threads[3], NULL) == 0);
	close_end(to);
}

void run_storm(void)
{
	storm(TCP4);
}

void run_unix_storm(void)
{
	storm(UNIX_STREAM);
}
