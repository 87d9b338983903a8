/* SPDX-License-Identifier: Apache-2.0
 * Makes system calls and times them: one line "CALL BYTES COUNT" on stdin is answered by one line "NS CALM MESSAGES" on
 * stdout: the time of one call (of one message for the calls with 8 messages), the share of calm blocks, and how many
 * messages were timed. "pace BYTES EVENTS" makes as many writes and reads in a second. Knows nothing of what watches it.
 *
 * A call is timed in blocks; what fills or empties the other end runs between two blocks and is in no figure. Before and after
 * a block a short sum is computed: where it takes longer than it ever did by more than CALM, somebody else uses this core
 * (a virtual machine's neighbours do so for seconds), and the block does not count. The answer is the mean of the calm
 * blocks between the quartiles: timer interrupts fall into the slowest.
 *
 * usage: driver CPU */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define MAX_BYTES 16384        /* the longest message of the bench */
#define VECTOR 8               /* messages of one sendmmsg or recvmmsg call */
#define BLOCK_CALLS 64         /* calls between two clock reads: their cost is then below 1 ns per call */
#define BLOCK_BYTES (128 << 10) /* bytes between two clock reads: what every socket buffer holds */
#define MAX_DATAGRAMS 64       /* waiting in a UDP socket; each takes more of its buffer than its bytes */
#define SOCKET_BUFFER (4 << 20)
#define LEAST_BLOCKS 8
#define WARM_UP_CALLS 4096     /* the first thousand writes of a TCP connection take 15 % less than all later ones */
#define MAX_BLOCKS 65536
#define PACE_STEPS 1000        /* of one second */
#define SUM_STEPS 4096         /* of the short sum: some 0.3 us */
#define CALM 1.2               /* a core shared with a neighbour takes 1.5 times as long for the sum */
#define LEAST_CALM 0.25        /* with a smaller share of calm blocks all of them count */

static int tcp_out, tcp_in, udp_out, udp_in, quiet, null_file, pipe_out, pipe_in;
static char payload[MAX_BYTES * VECTOR], drain[BLOCK_BYTES];
static struct iovec segments[VECTOR][2];
static struct msghdr message;
static struct mmsghdr messages[VECTOR];
static double block_ns[MAX_BLOCKS], calm_ns[MAX_BLOCKS];
static long long fastest_sum_ns = 1ll << 60;

static void die(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static long must(long result, const char *what)
{
	if (result < 0)
		die(what);
	return result;
}

static long long now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

/* Loads from the first cache, as many at a time as the core can: the first to suffer from another thread on this core. */
static long long sum_ns(void)
{
	static int numbers[SUM_STEPS];
	long long started = now_ns(), took;
	int i, sum = 0;

	for (i = 0; i < SUM_STEPS; i += 4) {
		sum += numbers[i] + numbers[i + 1] + numbers[i + 2] + numbers[i + 3];
		__asm__ volatile("" : "+r"(sum));
	}
	took = now_ns() - started;
	if (took < fastest_sum_ns)
		fastest_sum_ns = took;
	return took;
}

/* A pair of sockets connected over loopback; nothing is ever delayed to be joined with a later send. */
static void connect_pair(int type, int *out, int *in)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof(address);
	int bytes = SOCKET_BUFFER, on = 1;
	int listener = must(socket(AF_INET, type, 0), "socket");

	setsockopt(listener, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes));
	must(bind(listener, (void *)&address, sizeof(address)), "bind");
	must(getsockname(listener, (void *)&address, &size), "getsockname");
	*out = must(socket(AF_INET, type, 0), "socket");
	setsockopt(*out, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes));
	if (type == SOCK_STREAM)
		must(listen(listener, 1), "listen");
	must(connect(*out, (void *)&address, sizeof(address)), "connect");
	*in = listener;
	if (type == SOCK_STREAM) {
		*in = must(accept(listener, NULL, NULL), "accept");
		setsockopt(*out, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		close(listener);
	} else {
		size = sizeof(address);
		must(getsockname(*out, (void *)&address, &size), "getsockname");
		must(connect(*in, (void *)&address, size), "connect");
	}
}

/* Messages of two segments, the first of 16 bytes: a header and a body, as real senders build them. */
static void shape_messages(long bytes)
{
	int i;

	for (i = 0; i < VECTOR; i++) {
		char *base = payload + i * MAX_BYTES;
		long head = bytes < 16 ? bytes : 16;

		segments[i][0] = (struct iovec){base, head};
		segments[i][1] = (struct iovec){base + head, bytes - head};
		memset(&messages[i], 0, sizeof(messages[i]));
		messages[i].msg_hdr.msg_iov = segments[i];
		messages[i].msg_hdr.msg_iovlen = 2;
	}
	message = messages[0].msg_hdr;
}

static void empty_stream(int fd, long bytes)
{
	while (bytes > 0)
		bytes -= must(read(fd, drain, sizeof(drain)), "read");
}

/* Returns when everything has arrived, so that no read is a part of one or has to wait. */
static void fill_stream(long bytes)
{
	long left = bytes;
	int waiting = 0;

	while (left > 0)
		left -= must(write(tcp_out, drain, left), "write");
	while (waiting < bytes)
		must(ioctl(tcp_in, FIONREAD, &waiting), "ioctl");
}

static void empty_datagrams(long count)
{
	while (count--)
		must(recv(udp_in, drain, sizeof(drain), 0), "recv");
}

static void fill_datagrams(long count, long bytes)
{
	while (count--)
		must(send(udp_out, drain, bytes, 0), "send");
}

/* One call of each kind, on messages of `bytes`; returns what the call returned. */
static long call_write(long bytes) { return write(tcp_out, payload, bytes); }
static long call_writev(long bytes) { (void)bytes; return writev(tcp_out, segments[0], 2); }
static long call_sendto(long bytes) { return sendto(tcp_out, payload, bytes, 0, NULL, 0); }
static long call_sendmsg(long bytes) { (void)bytes; return sendmsg(tcp_out, &message, 0); }
static long call_sendmmsg(long bytes) { (void)bytes; return sendmmsg(udp_out, messages, 1, 0); }
static long call_sendmmsg8(long bytes) { (void)bytes; return sendmmsg(udp_out, messages, VECTOR, 0); }
static long call_read(long bytes) { return read(tcp_in, payload, bytes); }
static long call_readv(long bytes) { (void)bytes; return readv(tcp_in, segments[0], 2); }
static long call_recvfrom(long bytes) { return recvfrom(tcp_in, payload, bytes, 0, NULL, NULL); }
static long call_recvmsg(long bytes) { (void)bytes; return recvmsg(tcp_in, &message, 0); }
static long call_recvmmsg(long bytes) { (void)bytes; return recvmmsg(udp_in, messages, 1, 0, NULL); }
static long call_recvmmsg8(long bytes) { (void)bytes; return recvmmsg(udp_in, messages, VECTOR, 0, NULL); }
static long call_devnull(long bytes) { return write(null_file, payload, bytes); }
static long call_pipe(long bytes) { return write(pipe_out, payload, bytes); }
static long call_eagain(long bytes) { return read(quiet, payload, bytes); }
static long call_getppid(long bytes) { (void)bytes; return syscall(SYS_getppid); }

enum side { SEND_STREAM, READ_STREAM, SEND_DATAGRAMS, READ_DATAGRAMS, SEND_PIPE, ALONE };

static const struct kind {
	const char *name;
	long (*call)(long bytes);
	enum side side;
	int vector;
	int counts_messages; /* it returns a number of messages */
} KINDS[] = {
	{"write", call_write, SEND_STREAM, 1, 0},
	{"writev", call_writev, SEND_STREAM, 1, 0},
	{"sendto", call_sendto, SEND_STREAM, 1, 0},
	{"sendmsg", call_sendmsg, SEND_STREAM, 1, 0},
	{"sendmmsg", call_sendmmsg, SEND_DATAGRAMS, 1, 1},
	{"sendmmsg8", call_sendmmsg8, SEND_DATAGRAMS, VECTOR, 1},
	{"read", call_read, READ_STREAM, 1, 0},
	{"readv", call_readv, READ_STREAM, 1, 0},
	{"recvfrom", call_recvfrom, READ_STREAM, 1, 0},
	{"recvmsg", call_recvmsg, READ_STREAM, 1, 0},
	{"recvmmsg", call_recvmmsg, READ_DATAGRAMS, 1, 1},
	{"recvmmsg8", call_recvmmsg8, READ_DATAGRAMS, VECTOR, 1},
	{"devnull", call_devnull, ALONE, 1, 0},
	{"pipe", call_pipe, SEND_PIPE, 1, 0},
	{"eagain", call_eagain, ALONE, 1, 0},
	{"getppid", call_getppid, ALONE, 1, 0},
};

static long block_calls(const struct kind *kind, long bytes)
{
	long most = BLOCK_CALLS;
	long room = kind->side == SEND_PIPE ? 32768 : BLOCK_BYTES;

	if (kind->side == SEND_DATAGRAMS || kind->side == READ_DATAGRAMS)
		most = MAX_DATAGRAMS / kind->vector;
	if (kind->side != ALONE && most * bytes * kind->vector > room)
		most = room / (bytes * kind->vector);
	return most > 0 ? most : 1;
}

static double time_block(const struct kind *kind, long bytes, long calls, int *calm)
{
	long long before, after;
	long expected = kind->counts_messages ? kind->vector : bytes;
	long long started, ended;
	long i, wrong = 0;

	if (kind->call == call_eagain)
		expected = -1;
	if (kind->side == READ_STREAM)
		fill_stream(calls * bytes);
	else if (kind->side == READ_DATAGRAMS)
		fill_datagrams(calls * kind->vector, bytes);
	before = sum_ns();
	started = now_ns();
	for (i = 0; i < calls; i++)
		wrong += kind->call(bytes) != expected;
	ended = now_ns();
	after = sum_ns();
	*calm = (double)(before > after ? before : after) <= CALM * (double)fastest_sum_ns;
	if (wrong && kind->call != call_getppid) {
		fprintf(stderr, "%s of %ld bytes: %ld of %ld calls did not move what they should\n", kind->name, bytes, wrong, calls);
		exit(1);
	}
	if (kind->side == SEND_STREAM)
		empty_stream(tcp_in, calls * bytes);
	else if (kind->side == SEND_DATAGRAMS)
		empty_datagrams(calls * kind->vector);
	else if (kind->side == SEND_PIPE)
		empty_stream(pipe_in, calls * bytes);
	return (double)(ended - started) / (double)(calls * kind->vector);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double mean_between_quartiles(double *values, long n)
{
	long first = n / 4, last = n - first, i;
	double sum = 0;

	qsort(values, n, sizeof(*values), by_value);
	for (i = first; i < last; i++)
		sum += values[i];
	return sum / (double)(last - first);
}

struct answer {
	double ns;
	double calm_share;
	long messages;
};

static struct answer time_calls(const struct kind *kind, long bytes, long count)
{
	long calls = block_calls(kind, bytes);
	long blocks = (count + calls * kind->vector - 1) / (calls * kind->vector);
	struct answer answer;
	long i, n_calm = 0;
	int calm;

	blocks = blocks < LEAST_BLOCKS ? LEAST_BLOCKS : blocks > MAX_BLOCKS ? MAX_BLOCKS : blocks;
	shape_messages(bytes);
	time_block(kind, bytes, calls, &calm); /* the first one warms the caches */
	for (i = 0; i < blocks; i++) {
		block_ns[i] = time_block(kind, bytes, calls, &calm);
		if (calm)
			calm_ns[n_calm++] = block_ns[i];
	}
	answer.messages = blocks * calls * kind->vector;
	answer.calm_share = (double)n_calm / (double)blocks;
	if (answer.calm_share >= LEAST_CALM)
		answer.ns = mean_between_quartiles(calm_ns, n_calm);
	else
		answer.ns = mean_between_quartiles(block_ns, blocks);
	return answer;
}

/* A second of `events` writes and reads in turn, in PACE_STEPS equal steps by the clock. */
static struct answer keep_pace(long bytes, long events)
{
	struct timespec due;
	long step, i, pairs = events / 2 / PACE_STEPS;

	clock_gettime(CLOCK_MONOTONIC, &due);
	for (step = 0; step < PACE_STEPS; step++) {
		for (i = 0; i < pairs; i++) {
			must(write(tcp_out, payload, bytes), "write");
			must(read(tcp_in, payload, bytes), "read");
		}
		due.tv_nsec += 1000000000 / PACE_STEPS;
		if (due.tv_nsec >= 1000000000) {
			due.tv_sec++;
			due.tv_nsec -= 1000000000;
		}
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
	}
	return (struct answer){.calm_share = 1, .messages = pairs * 2 * PACE_STEPS};
}

static struct answer obey(const char *name, long bytes, long count)
{
	size_t i;

	if (!strcmp(name, "pace"))
		return keep_pace(bytes, count);
	for (i = 0; i < sizeof(KINDS) / sizeof(*KINDS); i++)
		if (!strcmp(KINDS[i].name, name))
			return time_calls(&KINDS[i], bytes, count);
	fprintf(stderr, "no such call: %s\n", name);
	exit(2);
}

static void open_targets(void)
{
	int ends[2], unused;

	connect_pair(SOCK_STREAM, &tcp_out, &tcp_in);
	connect_pair(SOCK_DGRAM, &udp_out, &udp_in);
	connect_pair(SOCK_STREAM, &unused, &quiet);
	must(fcntl(quiet, F_SETFL, O_NONBLOCK), "fcntl");
	null_file = must(open("/dev/null", O_WRONLY), "/dev/null");
	must(pipe(ends), "pipe");
	pipe_in = ends[0];
	pipe_out = ends[1];
}

static void stay_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	must(sched_setaffinity(0, sizeof(set), &set), "sched_setaffinity");
}

int main(int argc, char **argv)
{
	char line[128], name[32];
	struct answer answer;
	long bytes, count;
	size_t i;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	stay_on(argc > 1 ? atoi(argv[1]) : 0);
	open_targets();
	for (i = 0; i < sizeof(KINDS) / sizeof(*KINDS); i++)
		time_calls(&KINDS[i], 64, WARM_UP_CALLS);
	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "%31s %ld %ld", name, &bytes, &count) != 3 || bytes < 1 || bytes > MAX_BYTES || count < 1) {
			fprintf(stderr, "not a command: %s", line);
			return 2;
		}
		answer = obey(name, bytes, count);
		printf("%.2f %.3f %ld\n", answer.ns, answer.calm_share, answer.messages);
		fflush(stdout);
	}
	return 0;
}
