/* SPDX-License-Identifier: Apache-2.0
 * Makes connected pairs of every transport on the loopback, and learns where their streams begin. */
#include "truth.h"

#include <netinet/tcp.h>
#include <string.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#ifndef TCP_REPAIR_OFF_NO_WP
#define TCP_REPAIR_OFF_NO_WP (-1) /* linux/tcp.h: leave repair mode without a window probe */
#endif
#define REPAIR_SEND_QUEUE 2 /* linux/tcp.h: TCP_SEND_QUEUE */

const char *const TRANSPORTS[] = { "tcp4", "tcp6", "tcp-mapped", "tcp-mixed", "udp4", "udp6", "udp-mapped", "unix", "unix-named" };

static int family_of(enum transport transport)
{
	if (transport >= UNIX_STREAM)
		return AF_UNIX;
	return transport == TCP4 || transport == TCP_MIXED || transport == UDP4 ? AF_INET : AF_INET6;
}

socklen_t loopback(enum transport transport, uint16_t port, struct sockaddr_storage *address)
{
	struct sockaddr_in *v4 = (void *)address;
	struct sockaddr_in6 *v6 = (void *)address;

	memset(address, 0, sizeof(*address));
	if (family_of(transport) == AF_INET) {
		*v4 = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
		return sizeof(*v4);
	}
	*v6 = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	if (transport == TCP_MAPPED || transport == UDP_MAPPED)
		v6->sin6_addr = (struct in6_addr){ .s6_addr = { [10] = 0xff, [11] = 0xff, [12] = 127, [15] = 1 } };
	return sizeof(*v6);
}

void receive_timeout(int fd, int ms)
{
	struct timeval t = { ms / 1000, ms % 1000 * 1000 };

	CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t)) == 0);
}

/* The number of the next byte that a socket sends, without sending one. 0: not allowed here. */
static int send_position(int fd, uint32_t *position)
{
	int on = 1, off = TCP_REPAIR_OFF_NO_WP, queue = REPAIR_SEND_QUEUE;
	socklen_t bytes = sizeof(*position);

	if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on)) < 0)
		return 0;
	CHECK(setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, &queue, sizeof(queue)) == 0);
	CHECK(getsockopt(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, position, &bytes) == 0);
	CHECK(setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &off, sizeof(off)) == 0);
	return 1;
}

/* Learn the first sequence numbers of both streams; nothing was sent yet. */
void end_base(struct end *a, struct end *b)
{
	uint32_t from_a, from_b;

	if (!send_position(a->fd, &from_a) || !send_position(b->fd, &from_b))
		return;
	a->has_base = b->has_base = 1;
	a->base[1] = b->base[0] = from_a;
	a->base[0] = b->base[1] = from_b;
}

static void pair_tcp(enum transport transport, struct end **a, struct end **b)
{
	int family = family_of(transport), server_family = transport == TCP_MIXED ? AF_INET6 : family, one = 1, server, client;
	int listener = socket(server_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_storage address;
	socklen_t bytes = loopback(transport == TCP_MIXED ? TCP_MAPPED : transport, 0, &address);

	CHECK(listener >= 0 && bind(listener, (struct sockaddr *)&address, bytes) == 0 && listen(listener, 8) == 0);
	bytes = sizeof(address);
	CHECK(getsockname(listener, (struct sockaddr *)&address, &bytes) == 0);
	if (transport == TCP_MIXED)
		bytes = loopback(transport, ntohs(((struct sockaddr_in6 *)&address)->sin6_port), &address);
	client = socket(family, SOCK_STREAM, 0);
	CHECK(client >= 0 && connect(client, (struct sockaddr *)&address, bytes) == 0);
	server = accept4(listener, NULL, NULL, 0);
	CHECK(server >= 0 && close(listener) == 0);
	CHECK(setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) == 0);
	CHECK(setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) == 0);
	*a = end_new(KIND_TCP, family, client);
	*b = end_new(KIND_TCP, server_family, server);
	(*a)->fresh = (*b)->fresh = 1;
	end_base(*a, *b);
}

/* An unconnected datagram socket on a port of its own. */
struct end *udp_end(enum transport transport)
{
	struct sockaddr_storage address;
	socklen_t bytes = loopback(transport, 0, &address);
	int fd = socket(family_of(transport), SOCK_DGRAM, 0), most = 1 << 20;
	struct end *end;

	CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&address, bytes) == 0);
	CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &most, sizeof(most)) == 0);
	receive_timeout(fd, RECEIVE_TIMEOUT_MS);
	end = end_new(KIND_UDP, family_of(transport), fd);
	end_addresses(end);
	return end;
}

static void udp_connect(enum transport transport, struct end *end, const struct end *to)
{
	struct sockaddr_storage address;
	socklen_t bytes = loopback(transport, to->local_port, &address);

	CHECK(connect(end->fd, (struct sockaddr *)&address, bytes) == 0);
}

static void pair_unix(enum transport transport, struct end **a, struct end **b)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	socklen_t bytes = sizeof(name);
	int fds[2], listener;

	if (transport == UNIX_STREAM) {
		CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
	} else {
		listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		/* Without a path the kernel finds a name that nobody has. */
		CHECK(bind(listener, (struct sockaddr *)&name, sizeof(name.sun_family)) == 0 && listen(listener, 1) == 0);
		CHECK(getsockname(listener, (struct sockaddr *)&name, &bytes) == 0);
		fds[0] = socket(AF_UNIX, SOCK_STREAM, 0);
		CHECK(connect(fds[0], (struct sockaddr *)&name, bytes) == 0);
		fds[1] = accept4(listener, NULL, NULL, 0);
		CHECK(fds[1] >= 0 && close(listener) == 0);
	}
	*a = end_new(KIND_UNIX, AF_UNIX, fds[0]);
	*b = end_new(KIND_UNIX, AF_UNIX, fds[1]);
	(*a)->fresh = (*b)->fresh = 1;
}

/* Two ends that talk to each other. a called, b was called. */
void pair_make(enum transport transport, struct end **a, struct end **b)
{
	if (IS_TCP(transport)) {
		pair_tcp(transport, a, b);
	} else if (!IS_UDP(transport)) {
		pair_unix(transport, a, b);
	} else {
		*a = udp_end(transport);
		*b = udp_end(transport);
		udp_connect(transport, *a, *b);
		udp_connect(transport, *b, *a);
	}
	receive_timeout((*a)->fd, RECEIVE_TIMEOUT_MS);
	receive_timeout((*b)->fd, RECEIVE_TIMEOUT_MS);
	(*a)->other = (*b)->id;
	(*b)->other = (*a)->id;
	end_addresses(*a);
	end_addresses(*b);
}

void pair_close(struct end *a, struct end *b)
{
	close_end(a);
	close_end(b);
}
