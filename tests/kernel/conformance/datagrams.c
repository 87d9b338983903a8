/* SPDX-License-Identifier: Apache-2.0
 * Datagrams whose peer stands in the call, sockets that change their peer, and what only datagrams do. */
#include "truth.h"

#include <linux/errqueue.h>
#include <string.h>
#include <unistd.h>

/* Send to an address; connected sockets may name another one than their own peer. */
static long send_to(struct end *end, enum call_name name, enum transport transport, const struct end *to, size_t bytes)
{
	struct sockaddr_storage address;
	uint8_t *data = scratch(bytes);
	struct message *m;
	struct call call;

	fill(data, bytes);
	call_init(&call, name, end);
	m = call_add(&call, data, bytes, HAS_VECTOR(name) ? 2 : 1, 0);
	m->name = &address;
	m->name_bytes = loopback(transport, to->local_port, &address);
	return issue_bytes(&call);
}

static long receive_from(struct end *end, enum call_name name, size_t bytes, int flags)
{
	struct sockaddr_storage address;
	struct message *m;
	struct call call;

	memset(&address, 0x5a, sizeof(address));
	call_init(&call, name, end);
	call.flags = flags;
	m = call_add(&call, scratch(bytes), bytes, 1, 0);
	m->name = &address;
	m->name_bytes = sizeof(address);
	return issue_bytes(&call);
}

/* Room for less than an address: what lies behind it in the program's memory is another's. */
static void short_names(enum transport transport)
{
	struct end *a = udp_end(transport), *b = udp_end(transport);
	static const socklen_t rooms[] = { 0, 4, 16 };
	struct sockaddr_storage address, whole;
	struct message *m;
	struct call call;
	int i, name;

	log_case("%s/short-names", TRANSPORTS[transport]);
	for (name = CALL_RECVFROM; name <= CALL_RECVMMSG; name++) {
		for (i = 0; i < 3; i++) {
			CHECK(send_to(a, CALL_SENDTO, transport, b, 60) == 60);
			loopback(transport, 9, &address);
			if (transport != UDP4)
				((struct sockaddr_in6 *)&address)->sin6_addr.s6_addr[15] = 99;
			call_init(&call, name, b);
			m = call_add(&call, scratch(100), 100, 1, 0);
			m->name = &address;
			m->name_bytes = rooms[i];
			m->sender = rooms[i] < loopback(transport, 0, &whole) ? a : NULL;
			CHECK(issue(&call) > 0);
		}
	}
	pair_close(a, b);
}

static void unconnected(enum transport transport)
{
	struct end *a = udp_end(transport), *b = udp_end(transport), *c = udp_end(transport);
	int i;

	for (i = 0; i < 3; i++) {
		log_case("%s/unconnected-%d", TRANSPORTS[transport], i);
		CHECK(send_to(a, CALL_SENDTO + i, transport, b, 90) > 0);
		CHECK(send_to(c, CALL_SENDTO + i, transport, b, 91) > 0);
		CHECK(receive_from(b, CALL_RECVFROM + i, 200, MSG_PEEK) > 0);
		CHECK(receive_from(b, CALL_RECVFROM + i, 200, 0) > 0);
		CHECK(receive_from(b, CALL_RECVFROM + i, 50, 0) > 0);
		CHECK(send_to(b, CALL_SENDTO + i, transport, a, 92) > 0);
		CHECK(send_to(b, CALL_SENDTO + i, transport, c, 93) > 0);
		/* Nobody asks for the address. */
		CHECK(receive_plain(a, CALL_READ + i, 200, 0) > 0);
		CHECK(receive_plain(c, CALL_RECVFROM + i, 200, 0) > 0);
	}
	pair_close(a, b);
	close_end(c);
}

/* One call to two peers, and one from two. */
static void vector_of_peers(enum transport transport)
{
	struct end *a = udp_end(transport), *b = udp_end(transport), *c = udp_end(transport);
	struct sockaddr_storage addresses[4];
	struct message *m;
	struct call call;
	uint8_t *data;
	int i;

	log_case("%s/vector-of-peers", TRANSPORTS[transport]);
	call_init(&call, CALL_SENDMMSG, a);
	for (i = 0; i < 4; i++) {
		data = scratch(100 + i);
		fill(data, 100 + i);
		m = call_add(&call, data, 100 + i, 1 + i, 0);
		m->name = &addresses[i];
		m->name_bytes = loopback(transport, (i % 2 ? b : c)->local_port, &addresses[i]);
	}
	CHECK(issue(&call) == 4);
	CHECK(send_to(c, CALL_SENDTO, transport, b, 55) > 0);
	call_init(&call, CALL_RECVMMSG, b);
	call.flags = MSG_WAITFORONE;
	for (i = 0; i < 4; i++) {
		m = call_add(&call, scratch(200), 200, 2, 0);
		m->name = &addresses[i];
		m->name_bytes = sizeof(addresses[i]);
	}
	CHECK(issue(&call) == 3);
	pair_close(a, b);
	close_end(c);
}

static void connect_to(enum transport transport, struct end *end, const struct end *to)
{
	struct sockaddr_storage address;
	socklen_t bytes = sizeof(address);

	if (to)
		bytes = loopback(transport, to->local_port, &address);
	else
		memset(&address, 0, sizeof(address)); /* AF_UNSPEC: no peer any more */
	CHECK(connect(end->fd, (struct sockaddr *)&address, bytes) == 0);
	end_addresses(end);
}

static void changing_peers(enum transport transport)
{
	struct end *a = udp_end(transport), *b = udp_end(transport), *c = udp_end(transport);

	log_case("%s/changing-peers", TRANSPORTS[transport]);
	connect_to(transport, a, b);
	CHECK(send_plain(a, CALL_WRITE, 40, 0) > 0);
	CHECK(send_to(a, CALL_SENDTO, transport, c, 41) > 0);
	CHECK(send_to(a, CALL_SENDMSG, transport, c, 42) > 0);
	connect_to(transport, a, c);
	CHECK(send_plain(a, CALL_WRITE, 43, 0) > 0);
	connect_to(transport, a, NULL);
	CHECK(send_to(a, CALL_SENDTO, transport, b, 44) > 0);
	CHECK(receive_plain(b, CALL_READ, 100, 0) == 40);
	CHECK(receive_plain(b, CALL_READ, 100, 0) == 44);
	CHECK(receive_plain(c, CALL_READ, 100, 0) == 41);
	CHECK(receive_from(c, CALL_RECVMSG, 100, 0) == 42);
	CHECK(receive_from(c, CALL_RECVFROM, 100, 0) == 43);
	pair_close(a, b);
	close_end(c);
}

/* A socket that gets its port with its first message. */
static void unbound(enum transport transport)
{
	int fd = socket(transport == UDP4 ? AF_INET : AF_INET6, SOCK_DGRAM, 0);
	struct end *b = udp_end(transport), *a = end_new(KIND_UDP, b->family, fd);
	struct sockaddr_storage address;
	struct message *m;
	struct call call;
	uint8_t *data = scratch(60);

	log_case("%s/unbound", TRANSPORTS[transport]);
	CHECK(fd >= 0);
	fill(data, 60);
	call_init(&call, CALL_SENDTO, a);
	m = call_add(&call, data, 60, 1, 0);
	m->name = &address;
	m->name_bytes = loopback(transport, b->local_port, &address);
	CHECK(issue(&call) == 60);
	CHECK(send_to(a, CALL_SENDTO, transport, b, 61) > 0);
	CHECK(receive_from(b, CALL_RECVFROM, 100, 0) == 60);
	CHECK(receive_from(b, CALL_RECVFROM, 100, 0) == 61);
	pair_close(a, b);
}

static void empty_and_refused(enum transport transport)
{
	struct end *a, *b;
	int on = 1;

	log_case("%s/empty-and-refused", TRANSPORTS[transport]);
	pair_make(transport, &a, &b);
	CHECK(send_plain(a, CALL_WRITE, 0, 0) == 0);
	CHECK(send_plain(a, CALL_SENDTO, 0, 0) == 0);
	CHECK(send_plain(a, CALL_SENDTO, 12, 0) == 12);
	CHECK(receive_plain(b, CALL_RECVFROM, 100, 0) == 0);
	CHECK(receive_plain(b, CALL_RECVMSG, 100, 0) == 0);
	CHECK(receive_plain(b, CALL_RECVMSG, 100, 0) == 12);
	CHECK(setsockopt(a->fd, a->family == AF_INET ? IPPROTO_IP : IPPROTO_IPV6, a->family == AF_INET ? IP_RECVERR : IPV6_RECVERR, &on,
			 sizeof(on)) == 0);
	close_end(b);
	CHECK(send_plain(a, CALL_SENDTO, 13, 0) == 13);
	CHECK(send_plain(a, CALL_SENDTO, 14, 0) < 0 && errno == ECONNREFUSED);
	/* The error queue hands the packet back: bytes, but none that anybody sent to us. */
	receive_from(a, CALL_RECVMSG, 100, MSG_ERRQUEUE | MSG_DONTWAIT);
	close_end(a);
}

void run_datagrams(void)
{
	int transport;

	for (transport = UDP4; transport <= UDP_MAPPED; transport++) {
		unconnected(transport);
		short_names(transport);
		vector_of_peers(transport);
		changing_peers(transport);
		unbound(transport);
		empty_and_refused(transport);
	}
}
