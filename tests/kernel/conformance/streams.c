/* SPDX-License-Identifier: Apache-2.0
 * What only streams do: calls that wait and are interrupted, fast open, urgent bytes, numbers that wrap around. */
#include "truth.h"

#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

struct task {
	struct end *end;
	enum call_name name;
	size_t bytes;
	int flags;
	unsigned restarts;
	int repeat;
	long result;
	pthread_t thread;
	pid_t tid;
};

static void *receive_in_thread(void *argument)
{
	struct task *task = argument;
	struct call call;
	size_t left = task->bytes;

	log_case("streams/thread");
	__atomic_store_n(&task->tid, syscall(SYS_gettid), __ATOMIC_SEQ_CST);
	do {
		call_init(&call, task->name, task->end);
		call.flags = task->flags;
		call.restarts = task->restarts;
		call_add(&call, scratch(left), left, 1, 0);
		task->result = issue(&call);
		left -= task->result > 0 ? task->result : 0;
	} while (task->repeat && task->result > 0 && left);
	return NULL;
}

static void begin(struct task *task)
{
	CHECK(pthread_create(&task->thread, NULL, receive_in_thread, task) == 0);
	while (!__atomic_load_n(&task->tid, __ATOMIC_SEQ_CST))
		usleep(100);
	wait_inside(task->tid, task->name);
}

static void on_signal(int number)
{
	(void)number;
}

/* A signal ends a call that waits, or the kernel enters it once more. */
static void interrupted(enum transport transport, int again)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = again ? SA_RESTART : 0 };
	struct task task = { .name = CALL_READ, .bytes = 100, .restarts = again };
	struct end *a, *b;

	pair_make(transport, &a, &b);
	receive_timeout(b->fd, 0);
	log_case("%s/interrupted-%d", TRANSPORTS[transport], again);
	CHECK(sigaction(SIGUSR2, &action, NULL) == 0);
	task.end = b;
	begin(&task);
	CHECK(syscall(SYS_tgkill, getpid(), task.tid, SIGUSR2) == 0);
	usleep(5000); /* the handler runs; a call that goes on sleeps again */
	if (again)
		wait_inside(task.tid, task.name);
	CHECK(send_plain(a, CALL_WRITE, 66, 0) == 66);
	CHECK(pthread_join(task.thread, NULL) == 0);
	CHECK(task.result == (again ? 66 : -1));
	if (!again)
		CHECK(receive_plain(b, CALL_READ, 100, 0) == 66);
	pair_close(a, b);
}

/* A signal ends a write that has moved some of its bytes. */
static void interrupted_write(enum transport transport)
{
	struct sigaction action = { .sa_handler = on_signal };
	struct task task = { .name = CALL_SENDMSG, .bytes = 1000000 };
	struct end *a, *b;
	int small = 4096;

	pair_make(transport, &a, &b);
	CHECK(setsockopt(a->fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)) == 0);
	CHECK(setsockopt(b->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)) == 0);
	log_case("%s/interrupted-write", TRANSPORTS[transport]);
	CHECK(sigaction(SIGUSR2, &action, NULL) == 0);
	task.end = a;
	begin(&task);
	CHECK(syscall(SYS_tgkill, getpid(), task.tid, SIGUSR2) == 0);
	CHECK(pthread_join(task.thread, NULL) == 0);
	CHECK(task.result > 0 && task.result < 1000000);
	CHECK(receive_plain(b, CALL_READ, 300000, 0) > 0);
	pair_close(a, b);
}

/* One call that waits for the bytes of several, and one that gets them in pieces. */
static void waiting(enum transport transport)
{
	struct task task = { .name = CALL_RECVFROM, .bytes = 150, .flags = MSG_WAITALL };
	struct end *a, *b;

	pair_make(transport, &a, &b);
	log_case("%s/waitall", TRANSPORTS[transport]);
	task.end = b;
	begin(&task);
	CHECK(send_plain(a, CALL_WRITE, 100, 0) == 100);
	usleep(1000);
	CHECK(send_plain(a, CALL_WRITE, 50, 0) == 50);
	CHECK(pthread_join(task.thread, NULL) == 0 && task.result == 150);
	pair_close(a, b);
}

/* One write that is too large for the socket's memory and waits for the reader. */
static void large(enum transport transport)
{
	struct task task = { .name = CALL_READ, .bytes = 400000, .repeat = 1 };
	struct end *a, *b;

	pair_make(transport, &a, &b);
	log_case("%s/large", TRANSPORTS[transport]);
	task.end = b;
	begin(&task);
	CHECK(send_plain(a, CALL_SENDMSG, 400000, 0) == 400000);
	CHECK(pthread_join(task.thread, NULL) == 0);
	CHECK(b->moved[0] == 400000);
	pair_close(a, b);
}

static void more(enum transport transport)
{
	struct end *a, *b;
	long n;

	pair_make(transport, &a, &b);
	log_case("%s/more", TRANSPORTS[transport]);
	CHECK(send_plain(a, CALL_SENDTO, 100, MSG_MORE) == 100);
	CHECK(send_plain(a, CALL_SENDMSG, 101, MSG_MORE) == 101);
	CHECK(send_plain(a, CALL_WRITE, 102, 0) == 102);
	for (n = 0; n < 303;) {
		long got = receive_plain(b, CALL_READ, 1000, 0);

		CHECK(got > 0);
		n += got;
	}
	pair_close(a, b);
}

/* The same, where the program reads it in line with all others. */
static void urgent_in_line(enum transport transport)
{
	struct end *a, *b;
	int on = 1;

	pair_make(transport, &a, &b);
	log_case("%s/urgent-in-line", TRANSPORTS[transport]);
	CHECK(setsockopt(b->fd, SOL_SOCKET, SO_OOBINLINE, &on, sizeof(on)) == 0);
	CHECK(send_plain(a, CALL_WRITE, 20, 0) == 20);
	CHECK(send_plain(a, CALL_SENDTO, 1, MSG_OOB) == 1);
	a->moved[1]++;
	CHECK(send_plain(a, CALL_WRITE, 20, 0) == 20);
	while (b->moved[0] < 41)
		CHECK(receive_plain(b, CALL_READ, 100, 0) > 0);
	pair_close(a, b);
}

/* An urgent byte takes a number of the stream that no read moves. */
static void urgent(enum transport transport)
{
	struct end *a, *b;

	pair_make(transport, &a, &b);
	log_case("%s/urgent", TRANSPORTS[transport]);
	a->sure = b->sure = 0;
	CHECK(send_plain(a, CALL_WRITE, 20, 0) == 20);
	CHECK(send_plain(a, CALL_SENDTO, 1, MSG_OOB) == 1);
	a->moved[1]++;
	CHECK(send_plain(a, CALL_WRITE, 20, 0) == 20);
	usleep(1000);
	receive_plain(b, CALL_RECVFROM, 1, MSG_OOB);
	CHECK(receive_plain(b, CALL_READ, 100, 0) == 20);
	b->moved[0]++;
	CHECK(receive_plain(b, CALL_READ, 100, 0) == 20);
	pair_close(a, b);
}

/* The first bytes leave inside the call that connects. */
static void fast_open(enum transport transport)
{
	struct sockaddr_storage address;
	socklen_t bytes = loopback(transport, 0, &address);
	int family = transport == TCP4 ? AF_INET : AF_INET6, listener = socket(family, SOCK_STREAM, 0);
	struct end *a = end_new(KIND_TCP, family, socket(family, SOCK_STREAM, 0)), *b;
	uint8_t *data = scratch(45);
	struct message *m;
	struct call call;

	log_case("%s/fast-open", TRANSPORTS[transport]);
	CHECK(bind(listener, (struct sockaddr *)&address, bytes) == 0 && listen(listener, 1) == 0);
	CHECK(getsockname(listener, (struct sockaddr *)&address, &bytes) == 0);
	a->sure = 0;
	fill(data, 45);
	call_init(&call, CALL_SENDTO, a);
	call.flags = MSG_FASTOPEN;
	m = call_add(&call, data, 45, 1, 0);
	m->name = &address;
	m->name_bytes = bytes;
	CHECK(issue(&call) == 45);
	b = end_new(KIND_TCP, family, accept4(listener, NULL, NULL, 0));
	b->fresh = 1;
	end_addresses(b);
	CHECK(receive_plain(b, CALL_READ, 100, 0) == 45);
	CHECK(send_plain(a, CALL_WRITE, 46, 0) == 46);
	CHECK(receive_plain(b, CALL_READ, 100, 0) == 46);
	pair_close(a, b);
	close(listener);
}

void run_streams(void)
{
	int transport;

	for (transport = 0; transport < N_TRANSPORTS; transport++) {
		if (IS_UDP(transport))
			continue;
		interrupted(transport, 0);
		interrupted(transport, 1);
		interrupted_write(transport);
		waiting(transport);
		large(transport);
		more(transport);
		if (!IS_TCP(transport))
			continue;
		urgent(transport);
		urgent_in_line(transport);
		if (transport != TCP_MIXED)
			fast_open(transport);
	}
}
