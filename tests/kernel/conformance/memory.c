/* SPDX-License-Identifier: Apache-2.0
 * Bytes in memory of all kinds: at its very edge, in pages that nobody has touched yet, and with names in the call that mean
 * nothing. (Headers and lists of segments stand at an edge in every case.) */
#include "truth.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FILE_BYTES 12000

/* More room than memory: the bytes that come fit, and end where the memory ends. */
static void edge(enum transport transport, enum call_name out, enum call_name in)
{
	uint8_t *data = at_edge(EDGE_DATA, 700);
	struct end *a, *b;
	struct call call;

	pair_make(transport, &a, &b);
	fill(data, 700);
	call_init(&call, out, a);
	call_add(&call, data, 700, HAS_VECTOR(out) ? 3 : 1, 0);
	CHECK(issue_bytes(&call) == 700);
	memset(data, 0, 700);
	call_init(&call, in, b);
	call_add(&call, data, 700, 1, 0)->iov[0].iov_len = 1200;
	CHECK(issue_bytes(&call) == 700);
	pair_close(a, b);
}

/* Pages of a file that the program has mapped and never touched; the kernel reads them first. */
static void untouched(enum transport transport, enum call_name out, enum call_name in)
{
	static uint8_t content[FILE_BYTES];
	FILE *file = tmpfile();
	struct end *a, *b;
	struct call call;
	uint8_t *mapped;

	fill(content, FILE_BYTES);
	CHECK(file && pwrite(fileno(file), content, FILE_BYTES, 0) == FILE_BYTES);
	mapped = mmap(NULL, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE, fileno(file), 0);
	CHECK(mapped != MAP_FAILED);
	pair_make(transport, &a, &b);
	call_init(&call, out, a);
	call_add(&call, mapped + 100, 9000, HAS_VECTOR(out) ? 4 : 1, 0);
	CHECK(issue_bytes(&call) == 9000);
	CHECK(munmap(mapped, FILE_BYTES) == 0);
	mapped = mmap(NULL, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE, fileno(file), 0);
	CHECK(mapped != MAP_FAILED);
	while (b->moved[0] < 9000) {
		call_init(&call, in, b);
		call_add(&call, mapped + 3000, 9000, HAS_VECTOR(in) ? 4 : 1, 0);
		CHECK(issue_bytes(&call) > 0);
	}
	CHECK(munmap(mapped, FILE_BYTES) == 0);
	fclose(file);
	pair_close(a, b);
}

/* Streams take names and do not look at them, and give none. */
static void named_stream(enum transport transport)
{
	struct end *a, *b;
	struct call call;
	int i;

	log_case("%s/named-stream", TRANSPORTS[transport]);
	pair_make(transport, &a, &b);
	for (i = 0; i < 3; i++) {
		struct sockaddr_storage name;
		struct message *m;

		call_init(&call, CALL_SENDTO + i, a);
		m = call_add(&call, scratch(80), 80, 1, 0);
		m->name_bytes = loopback(UDP4, 9, &name);
		m->name = &name;
		CHECK(issue_bytes(&call) == 80);
		call_init(&call, CALL_RECVFROM + i, b);
		m = call_add(&call, scratch(100), 100, 1, 0);
		m->name = &name;
		m->name_bytes = sizeof(name);
		CHECK(issue_bytes(&call) == 80);
	}
	pair_close(a, b);
}

/* A name that ends where the memory ends. */
static void name_at_edge(enum transport transport)
{
	struct end *a = udp_end(transport), *b = udp_end(transport);
	struct sockaddr_storage address;
	struct message *m;
	struct call call;
	socklen_t bytes;
	int i;

	log_case("%s/name-at-edge", TRANSPORTS[transport]);
	for (i = 0; i < 3; i++) {
		bytes = loopback(transport, b->local_port, &address);
		call_init(&call, CALL_SENDTO + i, a);
		m = call_add(&call, scratch(50), 50, 1, 0);
		m->name = memcpy(at_edge(EDGE_NAME, bytes), &address, bytes);
		m->name_bytes = bytes;
		CHECK(issue_bytes(&call) == 50);
		call_init(&call, CALL_RECVFROM + i, b);
		m = call_add(&call, scratch(60), 60, 1, 0);
		m->name = memset(at_edge(EDGE_NAME, bytes), 0, bytes);
		m->name_bytes = bytes;
		CHECK(issue_bytes(&call) == 50);
	}
	pair_close(a, b);
}

void run_memory(void)
{
	int transport, i;

	for (transport = 0; transport < N_TRANSPORTS; transport++) {
		for (i = 0; i < 5; i++) {
			log_case("%s/edge-%d", TRANSPORTS[transport], i);
			edge(transport, CALL_WRITE + i, CALL_READ + i);
			log_case("%s/untouched-%d", TRANSPORTS[transport], i);
			untouched(transport, CALL_WRITE + i, CALL_READ + i);
		}
		if (IS_TCP(transport))
			named_stream(transport);
		if (IS_UDP(transport))
			name_at_edge(transport);
	}
}
