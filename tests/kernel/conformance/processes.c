/* SPDX-License-Identifier: Apache-2.0
 * Connections that several processes hold: by fork, by passing a descriptor, over an exec. */
#include "truth.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void wait_for(pid_t pid)
{
	int status;

	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* Parent and child speak in turns on both ends of one connection. */
static void forked(enum transport transport)
{
	struct end *a, *b;
	pid_t pid;

	log_case("%s/forked", TRANSPORTS[transport]);
	pair_make(transport, &a, &b);
	CHECK(send_plain(a, CALL_WRITE, 61, 0) == 61);
	pid = fork();
	CHECK(pid >= 0);
	if (!pid) {
		CHECK(receive_plain(b, CALL_READ, 100, 0) == 61);
		CHECK(send_plain(b, CALL_SENDTO, 62, 0) == 62);
		CHECK(send_plain(a, CALL_WRITEV, 63, 0) == 63);
		_exit(0);
	}
	wait_for(pid);
	CHECK(receive_plain(a, CALL_RECVMSG, 100, 0) == 62);
	CHECK(receive_plain(b, CALL_READ, 100, 0) == 63);
	CHECK(send_plain(b, CALL_WRITE, 64, 0) == 64);
	CHECK(receive_plain(a, CALL_READ, 100, 0) == 64);
	pair_close(a, b);
}

static void *exit_at_signal(void *argument)
{
	sigset_t set;
	int number;

	(void)argument;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	sigwait(&set, &number);
	_exit(0);
}

/* Let another thread end the whole process when SIGUSR2 comes. */
static void exit_from_thread(void)
{
	pthread_t thread;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
	CHECK(pthread_create(&thread, NULL, exit_at_signal, NULL) == 0);
}

/* A socket belongs to the network in which it was made, wherever its process has gone. */
static void taken_along(enum transport transport)
{
	struct end *a, *b;
	pid_t pid;

	log_case("%s/taken-along", TRANSPORTS[transport]);
	pair_make(transport, &a, &b);
	pid = fork();
	CHECK(pid >= 0);
	if (!pid) {
		if (unshare(CLONE_NEWNET) < 0)
			log_fact("left_out", "\"another network: errno %d\"", errno);
		CHECK(send_plain(a, CALL_WRITE, 91, 0) == 91);
		CHECK(receive_plain(b, CALL_READ, 100, 0) == 91);
		_exit(0);
	}
	wait_for(pid);
	pair_close(a, b);
}

/* A process that ends inside a call leaves the connection to the others as it was. */
static void killed(enum transport transport, int by_exit)
{
	struct end *a, *b;
	struct call call;
	pid_t pid;

	log_case("%s/killed-%d", TRANSPORTS[transport], by_exit);
	pair_make(transport, &a, &b);
	CHECK(send_plain(a, CALL_WRITE, 51, 0) == 51);
	CHECK(receive_plain(b, CALL_READ, 100, 0) == 51);
	pid = fork();
	CHECK(pid >= 0);
	if (!pid) {
		if (by_exit)
			exit_from_thread();
		call_init(&call, CALL_READ, b);
		call_add(&call, scratch(100), 100, 1, 0);
		issue(&call);
		_exit(1);
	}
	wait_inside(pid, CALL_READ);
	log_fact("ended_inside", "1"); /* the kernel lets the call return before the process ends; no log tells of it */
	if (by_exit)
		CHECK(kill(pid, SIGUSR2) == 0);
	else
		CHECK(kill(pid, SIGKILL) == 0);
	CHECK(waitpid(pid, NULL, 0) == pid);
	CHECK(send_plain(a, CALL_WRITE, 52, 0) == 52);
	CHECK(receive_plain(b, CALL_READ, 100, 0) == 52);
	CHECK(send_plain(b, CALL_WRITE, 53, 0) == 53);
	CHECK(receive_plain(a, CALL_RECVMSG, 100, 0) == 53);
	pair_close(a, b);
}

/* A descriptor in a message, and the one byte that carries it. */
static long pass(struct end *by, enum call_name name, int *fd)
{
	uint8_t *control = scratch(CMSG_SPACE(sizeof(int))), *byte = scratch(1);
	struct cmsghdr *header = (struct cmsghdr *)control;
	struct message *m;
	struct call call;
	long n;

	memset(control, 0, CMSG_SPACE(sizeof(int)));
	if (IS_EGRESS(name)) {
		header->cmsg_len = CMSG_LEN(sizeof(int));
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		memcpy(CMSG_DATA(header), fd, sizeof(int));
	}
	*byte = 'F';
	call_init(&call, name, by);
	m = call_add(&call, byte, 1, 1, 0);
	m->control = control;
	m->control_bytes = CMSG_SPACE(sizeof(int));
	n = issue(&call);
	if (!IS_EGRESS(name))
		memcpy(fd, CMSG_DATA(header), sizeof(int));
	return n;
}

static void passed(enum transport transport)
{
	struct end *a, *b, *way_out, *way_in;
	int fd;
	pid_t pid;

	log_case("%s/passed", TRANSPORTS[transport]);
	pair_make(UNIX_STREAM, &way_out, &way_in);
	pid = fork(); /* before the connection is made: the child knows it by the message alone */
	CHECK(pid >= 0);
	if (!pid) {
		CHECK(pass(way_in, CALL_RECVMSG, &fd) == 1);
		b = end_of(way_in->id + 2); /* the next pair's second end; shared memory, made by the parent */
		b->fd = fd;
		CHECK(receive_plain(b, CALL_READ, 100, 0) == 71);
		CHECK(send_plain(b, CALL_WRITE, 72, 0) == 72);
		_exit(0);
	}
	pair_make(transport, &a, &b);
	CHECK(b->id == way_in->id + 2);
	CHECK(send_plain(a, CALL_WRITE, 71, 0) == 71);
	fd = b->fd;
	CHECK(pass(way_out, CALL_SENDMSG, &fd) == 1);
	close(fd);
	CHECK(receive_plain(a, CALL_READ, 100, 0) == 72);
	wait_for(pid);
	close_end(a);
	pair_close(way_out, way_in);
}

/* After an exec it is another program, and the same process and connection. */
static void executed(enum transport transport, const char *program, const char *log_path)
{
	char end_id[16], fd[16];
	struct end *a, *b;
	pid_t pid;

	log_case("%s/executed", TRANSPORTS[transport]);
	pair_make(transport, &a, &b);
	CHECK(send_plain(a, CALL_WRITE, 81, 0) == 81);
	snprintf(end_id, sizeof(end_id), "%d", b->id);
	snprintf(fd, sizeof(fd), "%d", b->fd);
	pid = fork();
	CHECK(pid >= 0);
	if (!pid) {
		CHECK(send_plain(b, CALL_WRITE, 82, 0) == 82);
		execl(program, program, log_path, "resumed", end_id, fd, (char *)NULL);
		die("exec");
	}
	wait_for(pid);
	CHECK(receive_plain(a, CALL_READ, 82, 0) == 82);
	CHECK(receive_plain(a, CALL_READ, 100, 0) == 83);
	pair_close(a, b);
}

void run_resumed(int end_id, int fd)
{
	struct end *b = end_of(end_id);

	log_case("exec/resumed");
	b->fd = fd;
	CHECK(receive_plain(b, CALL_READ, 100, 0) == 81);
	CHECK(send_plain(b, CALL_WRITE, 83, 0) == 83);
}

void run_processes(const char *program, const char *log_path)
{
	int transport;

	for (transport = 0; transport < N_TRANSPORTS; transport++) {
		forked(transport);
		taken_along(transport);
		killed(transport, 0);
		killed(transport, 1);
		passed(transport);
		executed(transport, program, log_path);
	}
}
