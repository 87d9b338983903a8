/* SPDX-License-Identifier: Apache-2.0
 * Everything that reads and writes without being a followed socket: no record may come of it. */
#include "truth.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

/* Every call on a descriptor, both ways; most of them fail, and none may be taken for a socket's. */
static void all_calls(int kind, int fd, int can_wait)
{
	struct end *end = end_new(kind, 0, fd);
	int flags = fcntl(fd, F_GETFL), i;

	if (can_wait)
		CHECK(fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0);
	for (i = CALL_WRITE; i <= CALL_SENDMMSG; i++)
		send_plain(end, i, 8, HAS_FLAGS(i) ? MSG_DONTWAIT | MSG_NOSIGNAL : 0);
	for (i = CALL_READ; i <= CALL_RECVMMSG; i++)
		receive_plain(end, i, 128, HAS_FLAGS(i) ? MSG_DONTWAIT : 0);
}

static void on(const char *name, int kind, int fd)
{
	log_case("nothing/%s", name);
	CHECK(fd >= 0);
	all_calls(kind, fd, 1);
	close(fd);
}

static void files(void)
{
	FILE *file = tmpfile();
	int fds[2], fd;

	CHECK(file);
	log_case("nothing/file");
	all_calls(KIND_NONE, fileno(file), 0);
	fclose(file);
	CHECK(pipe2(fds, O_NONBLOCK) == 0);
	log_case("nothing/pipe");
	all_calls(KIND_NONE, fds[1], 0);
	all_calls(KIND_NONE, fds[0], 0);
	close(fds[0]);
	close(fds[1]);
	on("memfd", KIND_NONE, memfd_create("conform", 0));
	on("null", KIND_NONE, open("/dev/null", O_RDWR));
	on("zero", KIND_NONE, open("/dev/zero", O_RDWR));
	on("proc", KIND_NONE, open("/proc/self/stat", O_RDONLY));
	on("folder", KIND_NONE, open("/", O_RDONLY | O_DIRECTORY));
	fd = open("/", O_PATH);
	log_case("nothing/path");
	all_calls(KIND_NONE, fd, 0);
	close(fd);
}

static void events(void)
{
	struct itimerspec soon = { .it_value.tv_nsec = 1000 };
	sigset_t set;
	int fd;

	on("eventfd", KIND_NONE, eventfd(3, 0));
	on("epoll", KIND_NONE, epoll_create1(0));
	fd = timerfd_create(CLOCK_MONOTONIC, 0);
	CHECK(fd >= 0 && timerfd_settime(fd, 0, &soon, NULL) == 0);
	usleep(100);
	on("timerfd", KIND_NONE, fd);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
	fd = signalfd(-1, &set, 0);
	CHECK(raise(SIGUSR2) == 0);
	on("signalfd", KIND_NONE, fd);
	signal(SIGUSR2, SIG_IGN);
	CHECK(sigprocmask(SIG_UNBLOCK, &set, NULL) == 0);
	fd = inotify_init1(0);
	CHECK(fd >= 0 && inotify_add_watch(fd, "/tmp", IN_CREATE) >= 0);
	fclose(tmpfile());
	on("inotify", KIND_NONE, fd);
}

static void on_if_possible(const char *name, int family, int type, int protocol)
{
	int fd = socket(family, type, protocol);

	log_case("nothing/%s", name);
	if (fd < 0) {
		log_fact("left_out", "\"%s: errno %d\"", name, errno);
		return;
	}
	all_calls(KIND_OTHER, fd, 1);
	close(fd);
}

static void other_sockets(void)
{
	int fds[2];

	on_if_possible("netlink", AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
	on_if_possible("packet", AF_PACKET, SOCK_DGRAM, 0);
	on_if_possible("raw4", AF_INET, SOCK_RAW, IPPROTO_ICMP);
	on_if_possible("raw6", AF_INET6, SOCK_RAW, IPPROTO_ICMPV6);
	on_if_possible("raw-udp", AF_INET, SOCK_RAW, IPPROTO_UDP);
	on_if_possible("raw-tcp", AF_INET, SOCK_RAW, IPPROTO_TCP);
	on_if_possible("ping", AF_INET, SOCK_DGRAM, IPPROTO_ICMP);
	on_if_possible("mptcp", AF_INET, SOCK_STREAM, IPPROTO_MPTCP);
	on_if_possible("udplite", AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE);
	CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, fds) == 0);
	log_case("nothing/unix-datagram");
	all_calls(KIND_OTHER, fds[0], 1);
	all_calls(KIND_OTHER, fds[1], 1);
	close(fds[0]);
	close(fds[1]);
	CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds) == 0);
	log_case("nothing/unix-seqpacket");
	all_calls(KIND_OTHER, fds[0], 1);
	all_calls(KIND_OTHER, fds[1], 1);
	close(fds[0]);
	close(fds[1]);
}

void run_nothing(void)
{
	files();
	events();
	other_sockets();
}
