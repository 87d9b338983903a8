/* SPDX-License-Identifier: Apache-2.0
 * churn SECONDS RATE [tcp]: opens, duplicates, forks over, resets and closes so many connections a second on the loopback, by threads that
 * share their descriptors' numbers. Every message carries the addresses of the connection that it is sent on, so that a record
 * with another connection's addresses convicts itself. Waits for the end of its standard input, says at its end what it did. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define N_WORKERS 3
#define N_LISTENERS 8      /* half of them IPv4, half IPv6 */
#define FORK_EVERY 40      /* connections; a fork costs as much as several of them */
#define DATAGRAM_EVERY 5
#define PIPE_EVERY 4
#define GREETING_BYTES 64  /* test_churn.py reads these */
#define RECEIVE_TIMEOUT_S 2

struct greeting {
	uint8_t magic[8];
	uint8_t local[16], peer[16];
	uint16_t local_port, peer_port;
	uint8_t family, l4;
	uint8_t pad[2];
	uint32_t number;
	uint8_t rest[12];
};
_Static_assert(sizeof(struct greeting) == GREETING_BYTES, "as test_churn.py reads it");
static const uint8_t MAGIC[8] = { 'd', 't', 'c', 'h', 'u', 'r', 'n', '\n' };

struct tally {
	uint64_t connections, greeted, heard, mixed, failed, forks, datagrams;
};
static struct tally *tally; /* shared with children */

struct worker {
	pthread_t thread;
	uint64_t random;
	int place[2];      /* numbers that one connection after the other is put into by dup2 */
	uint64_t rate;
	uint64_t end_ns;
};

static int listeners[N_LISTENERS];
static uint16_t ports[N_LISTENERS];
static int streams_only;
static int slot = -1;      /* a descriptor that some other thread will close */

static void count(uint64_t *value)
{
	__atomic_fetch_add(value, 1, __ATOMIC_RELAXED);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static unsigned chance(struct worker *w, unsigned below)
{
	w->random ^= w->random << 13;
	w->random ^= w->random >> 7;
	w->random ^= w->random << 17;
	return (w->random >> 20) % below;
}

/* getsockname or getpeername, as the probes write addresses; returns the family. */
static int address_of(int (*ask)(int, struct sockaddr *, socklen_t *), int fd, uint8_t *address, uint16_t *port)
{
	struct sockaddr_storage from;
	socklen_t bytes = sizeof(from);
	struct sockaddr_in6 *v6 = (void *)&from;
	struct sockaddr_in *v4 = (void *)&from;

	if (ask(fd, (struct sockaddr *)&from, &bytes) < 0)
		return -1;
	if (from.ss_family == AF_INET) {
		memset(address, 0, 10);
		address[10] = address[11] = 0xff;
		memcpy(address + 12, &v4->sin_addr, 4);
		*port = ntohs(v4->sin_port);
	} else {
		memcpy(address, &v6->sin6_addr, 16);
		*port = ntohs(v6->sin6_port);
	}
	return from.ss_family;
}

static long move_greeting(int fd, struct greeting *greeting, unsigned how, int out)
{
	struct iovec iov[2] = { { greeting, 20 }, { (uint8_t *)greeting + 20, sizeof(*greeting) - 20 } };
	struct mmsghdr header = { .msg_hdr = { .msg_iov = iov, .msg_iovlen = 2 } };
	long n;

	switch (how) {
	case 0:
		return out ? write(fd, greeting, sizeof(*greeting)) : read(fd, greeting, sizeof(*greeting));
	case 1:
		return out ? writev(fd, iov, 2) : readv(fd, iov, 2);
	case 2:
		return out ? sendto(fd, greeting, sizeof(*greeting), MSG_NOSIGNAL, NULL, 0) :
			     recvfrom(fd, greeting, sizeof(*greeting), 0, NULL, NULL);
	case 3:
		return out ? sendmsg(fd, &header.msg_hdr, MSG_NOSIGNAL) : recvmsg(fd, &header.msg_hdr, 0);
	default:
		n = out ? sendmmsg(fd, &header, 1, MSG_NOSIGNAL) : recvmmsg(fd, &header, 1, 0, NULL);
		return n == 1 ? (long)header.msg_len : -1;
	}
}

static int greet(struct worker *w, int fd, uint8_t l4)
{
	struct greeting greeting = { .l4 = l4, .number = tally->greeted };
	int family = address_of(getsockname, fd, greeting.local, &greeting.local_port);

	memcpy(greeting.magic, MAGIC, sizeof(MAGIC));
	greeting.family = family;
	if (family < 0 || address_of(getpeername, fd, greeting.peer, &greeting.peer_port) < 0 ||
	    move_greeting(fd, &greeting, chance(w, 5), 1) != GREETING_BYTES) {
		count(&tally->failed);
		return -1;
	}
	count(&tally->greeted);
	return 0;
}

/* Receive a greeting; it must be from this connection's other end, or the test itself is wrong. */
static int hear(struct worker *w, int fd)
{
	struct greeting greeting = { .number = 0 };
	uint8_t local[16], peer[16];
	uint16_t local_port = 0, peer_port = 0;

	if (move_greeting(fd, &greeting, chance(w, 5), 0) != GREETING_BYTES) {
		count(&tally->failed);
		return -1;
	}
	count(&tally->heard);
	if (address_of(getsockname, fd, local, &local_port) < 0 || address_of(getpeername, fd, peer, &peer_port) < 0)
		return 0;
	if (memcmp(greeting.peer, local, 16) || memcmp(greeting.local, peer, 16) || greeting.peer_port != local_port ||
	    greeting.local_port != peer_port)
		count(&tally->mixed);
	return 0;
}

static void set_timeout(int fd)
{
	struct timeval t = { RECEIVE_TIMEOUT_S, 0 };

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t));
}

static int dial(struct worker *w, int which)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(ports[which]) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(ports[which]), .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	int is_v4 = which < N_LISTENERS / 2, fd = socket(is_v4 ? AF_INET : AF_INET6, SOCK_STREAM, 0);

	v4.sin_addr.s_addr = htonl(0x7f000001 + chance(w, 0xffff00)); /* many addresses: more connections than ports */
	if (fd >= 0 && connect(fd, is_v4 ? (void *)&v4 : (void *)&v6, is_v4 ? sizeof(v4) : sizeof(v6)) == 0)
		return fd;
	count(&tally->failed);
	if (fd >= 0)
		close(fd);
	return -1;
}

/* The same connection under another number, in one of the ways there are. */
static int moved(struct worker *w, int fd, int side)
{
	int other;

	switch (chance(w, 4)) {
	case 0:
		other = dup(fd);
		break;
	case 1:
		other = dup2(fd, w->place[side]); /* closes what was there before */
		break;
	case 2:
		other = fcntl(fd, F_DUPFD_CLOEXEC, 40);
		break;
	default:
		return fd;
	}
	if (other < 0)
		return fd;
	close(fd);
	return other;
}

static void close_somehow(struct worker *w, int fd, int side)
{
	struct linger linger = { 1, 0 };

	if (fd < 0 || fd == w->place[side])
		return; /* closed by the next one that takes its place */
	switch (chance(w, 5)) {
	case 0:
		shutdown(fd, SHUT_WR);
		break;
	case 1:
		fd = __atomic_exchange_n(&slot, fd, __ATOMIC_SEQ_CST); /* another thread's turn */
		if (fd < 0)
			return;
		break;
	case 2:
		break;
	default:
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	}
	close(fd);
}

static void talk(struct worker *w, int c, int s, uint8_t l4)
{
	if (!greet(w, c, l4) && !hear(w, s) && !greet(w, s, l4))
		hear(w, c);
}

/* A child speaks; the parent goes on afterwards, or has let go of the connection before. */
static void talk_over_fork(struct worker *w, int *c, int *s, uint8_t l4)
{
	int leaves = chance(w, 2);
	pid_t pid = fork();

	if (!pid) {
		w->random += getpid();
		talk(w, *c, *s, l4);
		_exit(0);
	}
	if (pid < 0) {
		count(&tally->failed);
		return;
	}
	count(&tally->forks);
	if (leaves) {
		close_somehow(w, *c, 0);
		close_somehow(w, *s, 1);
		*c = *s = -1;
	}
	waitpid(pid, NULL, 0);
	if (!leaves)
		talk(w, *c, *s, l4);
}

static void one_connection(struct worker *w, int with_fork)
{
	int which = chance(w, N_LISTENERS), c = dial(w, which), s, c1, s1;

	if (c < 0)
		return;
	s = accept4(listeners[which], NULL, NULL, 0); /* perhaps another thread's connection */
	if (s < 0) {
		count(&tally->failed);
		close(c);
		return;
	}
	set_timeout(c);
	set_timeout(s);
	c1 = moved(w, c, 0);
	s1 = moved(w, s, 1);
	if (with_fork)
		talk_over_fork(w, &c1, &s1, IPPROTO_TCP);
	else
		talk(w, c1, s1, IPPROTO_TCP);
	close_somehow(w, c1, 0);
	close_somehow(w, s1, 1);
	count(&tally->connections);
}

static int bound_datagram_socket(struct sockaddr_in *address)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	socklen_t bytes = sizeof(*address);

	*address = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	if (bind(fd, (struct sockaddr *)address, bytes) < 0 || getsockname(fd, (struct sockaddr *)address, &bytes) < 0)
		count(&tally->failed);
	set_timeout(fd);
	return fd;
}

static void datagrams(struct worker *w, int with_fork)
{
	struct sockaddr_in a, b;
	int c = bound_datagram_socket(&a), s = bound_datagram_socket(&b);

	if (connect(c, (struct sockaddr *)&b, sizeof(b)) < 0 || connect(s, (struct sockaddr *)&a, sizeof(a)) < 0)
		count(&tally->failed);
	c = moved(w, c, 0);
	s = moved(w, s, 1);
	if (with_fork)
		talk_over_fork(w, &c, &s, IPPROTO_UDP);
	else
		talk(w, c, s, IPPROTO_UDP);
	count(&tally->datagrams);
	if (c >= 0 && c != w->place[0])
		close(c);
	if (s >= 0 && s != w->place[1])
		close(s);
}

/* A greeting that names no connection, through what is no socket. */
static void through_a_pipe(void)
{
	struct greeting greeting = { .number = 0 };
	int fds[2];

	memcpy(greeting.magic, MAGIC, sizeof(MAGIC));
	if (pipe(fds) < 0)
		return;
	if (write(fds[1], &greeting, sizeof(greeting)) < 0 || read(fds[0], &greeting, sizeof(greeting)) < 0)
		count(&tally->failed);
	close(fds[0]);
	close(fds[1]);
}

static void *work(void *argument)
{
	struct worker *w = argument;
	uint64_t begin_ns = now_ns(), n, due_ns;

	for (n = 0;; n++) {
		due_ns = begin_ns + n * 1000000000ull / w->rate;
		while (now_ns() < due_ns)
			usleep(1000);
		if (now_ns() >= w->end_ns)
			return NULL;
		one_connection(w, n % FORK_EVERY == FORK_EVERY - 1);
		if (!streams_only && n % DATAGRAM_EVERY == 0)
			datagrams(w, n % (FORK_EVERY * 3) == 0);
		if (n % PIPE_EVERY == 0)
			through_a_pipe();
	}
}

static void listen_everywhere(void)
{
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	struct sockaddr_in v4 = { .sin_family = AF_INET };
	struct sockaddr_storage address;
	socklen_t bytes;
	int i, is_v4;

	for (i = 0; i < N_LISTENERS; i++) {
		bytes = sizeof(address);
		is_v4 = i < N_LISTENERS / 2;
		listeners[i] = socket(is_v4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (bind(listeners[i], is_v4 ? (void *)&v4 : (void *)&v6, is_v4 ? sizeof(v4) : sizeof(v6)) < 0 ||
		    listen(listeners[i], 1024) < 0 || getsockname(listeners[i], (struct sockaddr *)&address, &bytes) < 0)
			exit(1);
		set_timeout(listeners[i]);
		ports[i] = ntohs(((struct sockaddr_in *)&address)->sin_port);
	}
}

int main(int argc, char **argv)
{
	struct pollfd input = { .fd = 0, .events = POLLIN };
	struct worker workers[N_WORKERS];
	uint64_t begin_ns;
	int i;

	if (argc < 3)
		return 2;
	streams_only = argc > 3;
	signal(SIGPIPE, SIG_IGN);
	tally = mmap(NULL, sizeof(*tally), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	listen_everywhere();
	poll(&input, 1, -1); /* until it is traced */
	begin_ns = now_ns();
	for (i = 0; i < N_WORKERS; i++) {
		workers[i] = (struct worker){ .random = 88172645463325252ull * (i + 1), .rate = (atoi(argv[2]) + N_WORKERS - 1) / N_WORKERS };
		workers[i].end_ns = begin_ns + atoi(argv[1]) * 1000000000ull;
		workers[i].place[0] = fcntl(listeners[0], F_DUPFD_CLOEXEC, 60);
		workers[i].place[1] = fcntl(listeners[0], F_DUPFD_CLOEXEC, 60);
		pthread_create(&workers[i].thread, NULL, work, &workers[i]);
	}
	for (i = 0; i < N_WORKERS; i++)
		pthread_join(workers[i].thread, NULL);
	printf("{\"connections\":%lu,\"greeted\":%lu,\"heard\":%lu,\"mixed\":%lu,\"failed\":%lu,\"forks\":%lu,\"datagrams\":%lu,\"seconds\":%.3f}\n",
	       tally->connections, tally->greeted, tally->heard, tally->mixed, tally->failed, tally->forks, tally->datagrams, (now_ns() - begin_ns) / 1e9);
	return 0;
}
