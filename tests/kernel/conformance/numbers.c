/* SPDX-License-Identifier: Apache-2.0
 * Streams whose numbers pass 2^32, which TCP's repair mode lets a program arrange; and sends that the
 * kernel cuts, joins or does not copy. */
#include "truth.h"

#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <string.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103    /* linux/udp.h */
#define UDP_GRO 104
#endif
#ifndef TCP_REPAIR_OFF_NO_WP
#define TCP_REPAIR_OFF_NO_WP (-1) /* linux/tcp.h */
#endif
#define SEND_QUEUE 2       /* linux/tcp.h: TCP_SEND_QUEUE */

/* A connection whose first byte from a has this number. 0: not allowed here. */
static int pair_at(enum transport transport, uint32_t first, struct end **a, struct end **b)
{
	int family = transport == TCP4 ? AF_INET : AF_INET6, listener = socket(family, SOCK_STREAM, 0);
	int client = socket(family, SOCK_STREAM, 0), on = 1, off = TCP_REPAIR_OFF_NO_WP, queue = SEND_QUEUE;
	struct sockaddr_storage address;
	socklen_t bytes = loopback(transport, 0, &address);
	uint32_t syn = first - 1;

	CHECK(bind(listener, (struct sockaddr *)&address, bytes) == 0 && listen(listener, 1) == 0);
	CHECK(getsockname(listener, (struct sockaddr *)&address, &bytes) == 0);
	if (setsockopt(client, IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on)) < 0)
		return 0;
	CHECK(setsockopt(client, IPPROTO_TCP, TCP_REPAIR_QUEUE, &queue, sizeof(queue)) == 0);
	CHECK(setsockopt(client, IPPROTO_TCP, TCP_QUEUE_SEQ, &syn, sizeof(syn)) == 0);
	CHECK(setsockopt(client, IPPROTO_TCP, TCP_REPAIR, &off, sizeof(off)) == 0);
	CHECK(connect(client, (struct sockaddr *)&address, bytes) == 0);
	*a = end_new(KIND_TCP, family, client);
	*b = end_new(KIND_TCP, family, accept4(listener, NULL, NULL, 0));
	(*a)->fresh = (*b)->fresh = 1;
	(*a)->other = (*b)->id;
	(*b)->other = (*a)->id;
	end_base(*a, *b);
	CHECK((*a)->base[1] == first);
	end_addresses(*a);
	end_addresses(*b);
	receive_timeout((*a)->fd, RECEIVE_TIMEOUT_MS);
	receive_timeout((*b)->fd, RECEIVE_TIMEOUT_MS);
	CHECK(close(listener) == 0);
	return 1;
}

static void pass_end(struct end *a, struct end *b, enum call_name out, enum call_name in)
{
	CHECK(send_plain(a, out, 100, 0) == 100);
	CHECK(receive_plain(b, in, 30, 0) == 30);
	if (HAS_FLAGS(in))
		CHECK(receive_plain(b, in, 100, MSG_PEEK) == 70);
	CHECK(receive_plain(b, in, 100, 0) == 70);
	CHECK(send_plain(a, out, 31, 0) == 31);
	CHECK(receive_plain(b, in, 100, 0) == 31);
}

/* The stream passes the end of the numbers inside a message, and in the next one between two. */
static void wrap(enum transport transport)
{
	struct end *a, *b;
	int i;

	for (i = 0; i < 10; i++) {
		log_case("%s/wrap", TRANSPORTS[transport]);
		if (!pair_at(transport, i < 5 ? 0xffffff9e : 0xffffff9c, &a, &b)) {
			log_fact("left_out", "\"wrap: errno %d\"", errno);
			return;
		}
		pass_end(a, b, CALL_WRITE + i % 5, CALL_READ + i % 5);
		pair_close(a, b);
	}
}

/* One send, several datagrams; several datagrams, one receive. */
static void segmented(enum transport transport)
{
	struct end *a, *b;
	int size = 500, on = 1, i;

	log_case("%s/segmented", TRANSPORTS[transport]);
	pair_make(transport, &a, &b);
	if (setsockopt(a->fd, IPPROTO_UDP, UDP_SEGMENT, &size, sizeof(size)) < 0) {
		log_fact("left_out", "\"udp segments: errno %d\"", errno);
		pair_close(a, b);
		return;
	}
	CHECK(send_plain(a, CALL_SENDMSG, 1700, 0) == 1700);
	for (i = 0; i < 4; i++)
		CHECK(receive_plain(b, CALL_RECVMSG, 2000, 0) == (i < 3 ? 500 : 200));
	if (setsockopt(b->fd, IPPROTO_UDP, UDP_GRO, &on, sizeof(on)) == 0) {
		CHECK(send_plain(a, CALL_SENDTO, 1700, 0) == 1700);
		for (i = 0; i < 1700;)
			i += receive_plain(b, CALL_RECVMSG, 2000, 0);
	}
	pair_close(a, b);
}

/* A corked datagram: several sends, one datagram. */
static void corked(enum transport transport)
{
	struct end *a, *b;

	log_case("%s/corked", TRANSPORTS[transport]);
	pair_make(transport, &a, &b);
	CHECK(send_plain(a, CALL_SENDTO, 100, MSG_MORE) == 100);
	CHECK(send_plain(a, CALL_SENDMSG, 50, MSG_MORE) == 50);
	CHECK(send_plain(a, CALL_WRITE, 7, 0) == 7);
	CHECK(receive_plain(b, CALL_READ, 1000, 0) == 157);
	pair_close(a, b);
}

/* The kernel sends from the program's own memory; its notices are no bytes of the stream. */
static void without_copy(enum transport transport)
{
	struct end *a, *b;
	int on = 1;

	log_case("%s/without-copy", TRANSPORTS[transport]);
	pair_make(transport, &a, &b);
	if (setsockopt(a->fd, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof(on)) < 0) {
		log_fact("left_out", "\"zero copy: errno %d\"", errno);
		pair_close(a, b);
		return;
	}
	CHECK(send_plain(a, CALL_SENDTO, 3000, MSG_ZEROCOPY) == 3000);
	CHECK(receive_plain(b, CALL_RECVFROM, 3000, MSG_WAITALL) == 3000);
	receive_plain(a, CALL_RECVMSG, 100, MSG_ERRQUEUE | MSG_DONTWAIT);
	CHECK(send_plain(a, CALL_SENDMSG, 30, MSG_ZEROCOPY) == 30);
	CHECK(receive_plain(b, CALL_READ, 100, 0) == 30);
	pair_close(a, b);
}

void run_numbers(void)
{
	int transport;

	for (transport = TCP4; transport <= UDP_MAPPED; transport++) {
		if (IS_UDP(transport)) {
			segmented(transport);
			corked(transport);
		} else {
			if (transport != TCP_MIXED)
				wrap(transport);
			without_copy(transport);
		}
	}
}
