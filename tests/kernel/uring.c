/* SPDX-License-Identifier: Apache-2.0
 * The program that knows the truth about io_uring: makes requests on sockets by the plain system calls (no library) and says of
 * each what it was given or got. usage: uring plain|async|defer|sqpoll|fixed. It says "ready" and waits for a line before it
 * begins; prints one JSON object a request, in the order of their completion. */
#include "uring.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define MAX_BYTES 20000
#define GROUP 7            /* of provided buffers */
#define N_PROVIDED 8
#define PROVIDED_BYTES 512

static int n_sent;         /* makes every message different */
static unsigned char provided[N_PROVIDED][PROVIDED_BYTES];

struct pair {
	int fd[2];
	int port[2];
};

static void say(const char *name, const char *call, const struct pair *pair, int end, int result, const unsigned char *data)
{
	int i;

	printf("{\"name\": \"%s\", \"call\": \"%s\", \"local\": %d, \"peer\": %d, \"result\": %d, \"data\": \"", name, call,
	       pair->port[end], pair->port[1 - end], result);
	for (i = 0; i < result; i++)
		printf("%02x", data[i]);
	printf("\"}\n");
}

static int port_of(int fd)
{
	struct sockaddr_in address;
	socklen_t bytes = sizeof(address);

	must(getsockname(fd, (struct sockaddr *)&address, &bytes), "getsockname");
	return ntohs(address.sin_port);
}

static int bound(int type)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, type, 0);

	must(fd, "socket");
	must(bind(fd, (struct sockaddr *)&address, sizeof(address)), "bind");
	return fd;
}

static void join(int fd, int other)
{
	struct sockaddr_in address;
	socklen_t bytes = sizeof(address);

	must(getsockname(other, (struct sockaddr *)&address, &bytes), "getsockname");
	must(connect(fd, (struct sockaddr *)&address, bytes), "connect");
}

static struct pair connected(int type)
{
	struct pair pair;
	int listener, one = 1;

	pair.fd[0] = bound(type);
	if (type == SOCK_STREAM) {
		listener = bound(type);
		must(listen(listener, 1), "listen");
		join(pair.fd[0], listener);
		pair.fd[1] = accept(listener, NULL, NULL);
		must(pair.fd[1], "accept");
		close(listener);
		setsockopt(pair.fd[0], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	} else {
		pair.fd[1] = bound(type);
		join(pair.fd[0], pair.fd[1]);
		join(pair.fd[1], pair.fd[0]);
	}
	pair.port[0] = port_of(pair.fd[0]);
	pair.port[1] = port_of(pair.fd[1]);
	return pair;
}

/* A buffer in up to three segments, and the header that names them. */
struct message {
	unsigned char data[MAX_BYTES];
	struct iovec iov[3];
	struct msghdr header;
};
static struct message out, in;

static void divide(struct message *message, unsigned bytes)
{
	unsigned part = bytes / 3 + 1, i, at = 0;

	for (i = 0; i < 3; i++) {
		message->iov[i].iov_base = message->data + at;
		message->iov[i].iov_len = bytes - at < part ? bytes - at : part;
		at += message->iov[i].iov_len;
	}
	memset(&message->header, 0, sizeof(message->header));
	message->header.msg_iov = message->iov;
	message->header.msg_iovlen = 3;
}

/* The four shapes in which a request names its bytes; zc: without a copy. */
struct way {
	const char *send_name, *send_call, *recv_name, *recv_call;
	int send, recv;
};
static const struct way ways[] = {
	{ "send", "sendto", "recv", "recvfrom", IORING_OP_SEND, IORING_OP_RECV },
	{ "write", "write", "read", "read", IORING_OP_WRITE, IORING_OP_READ },
	{ "writev", "writev", "readv", "readv", IORING_OP_WRITEV, IORING_OP_READV },
	{ "sendmsg", "sendmsg", "recvmsg", "recvmsg", IORING_OP_SENDMSG, IORING_OP_RECVMSG },
	{ "send_zc", "sendto", "recv", "recvfrom", IORING_OP_SEND_ZC, IORING_OP_RECV },
};

static void ask(int opcode, int fd, struct message *message, unsigned bytes)
{
	divide(message, bytes);
	if (opcode == IORING_OP_SENDMSG || opcode == IORING_OP_RECVMSG)
		request(opcode, fd, &message->header, 1, opcode);
	else if (opcode == IORING_OP_READV || opcode == IORING_OP_WRITEV)
		request(opcode, fd, message->iov, 3, opcode);
	else
		request(opcode, fd, message->data, bytes, opcode);
	submit();
	/* The kernel has taken the description of the bytes; what stands there now is nobody's business. */
	if (!is_sqpoll) {
		memset(message->iov, 0, sizeof(message->iov));
		memset(&message->header, 0, sizeof(message->header));
	}
}

static void fill(unsigned bytes)
{
	unsigned i;

	n_sent++;
	for (i = 0; i < bytes; i++)
		out.data[i] = i * 7 + n_sent;
}

/* One message from end 0 to end 1. waiting: the receive is there before the bytes are. */
static void move(const struct way *way, struct pair *pair, unsigned bytes, int waiting)
{
	unsigned got = 0;
	int sent = 0, n_open = 2;
	struct done done;

	fill(bytes);
	memset(in.data, 0, sizeof(in.data));
	if (waiting)
		ask(way->recv, pair->fd[1], &in, bytes);
	ask(way->send, pair->fd[0], &out, bytes);
	while (n_open) {
		done = completion();
		n_open--;
		if (done.flags & IORING_CQE_F_NOTIF)
			continue;
		if ((int)done.user_data == way->send) {
			say(way->send_name, way->send_call, pair, 0, done.res, out.data);
			sent = done.res;
			n_open += (done.flags & IORING_CQE_F_MORE) != 0; /* the kernel will say when it needs the bytes no more */
			if (!waiting)
				ask(way->recv, pair->fd[1], &in, bytes);
		} else {
			say(way->recv_name, way->recv_call, pair, 1, done.res, in.data);
			got += done.res;
			if (got < (unsigned)sent) { /* a stream may come in pieces */
				ask(way->recv, pair->fd[1], &in, sent - got);
				n_open++;
			}
		}
	}
}

static void transfers(const char *transport, int type)
{
	static const unsigned sizes[] = { 5, 700, 6000 };
	unsigned w, s, waiting;

	for (w = 0; w < sizeof(ways) / sizeof(*ways); w++) {
		struct pair pair = connected(type);

		printf("{\"begin\": \"%s %s\"}\n", transport, ways[w].send_name);
		for (s = 0; s < 3; s++)
			for (waiting = 0; waiting < 2; waiting++)
				move(&ways[w], &pair, sizes[s], waiting);
		close(pair.fd[0]);
		close(pair.fd[1]);
	}
}

static void provide(int first, int n)
{
	struct io_uring_sqe *sqe = request(IORING_OP_PROVIDE_BUFFERS, -1, provided[first], PROVIDED_BYTES, 0);

	sqe->fd = n;
	sqe->off = first;
	sqe->buf_group = GROUP;
	submit();
	must(completion().res, "provide buffers");
}

/* The kernel chooses the buffer; with `multishot` one request receives as often as there is something. */
static void chosen(int multishot)
{
	struct pair pair = connected(SOCK_STREAM);
	struct io_uring_sqe *sqe;
	struct done done;
	int i;

	printf("{\"begin\": \"chosen %s\"}\n", multishot ? "often" : "once");
	provide(0, N_PROVIDED);
	for (i = 0; i < 3; i++) {
		if (!i || !multishot) {
			sqe = request(IORING_OP_RECV, pair.fd[1], NULL, multishot ? 0 : PROVIDED_BYTES, 77);
			sqe->flags |= IOSQE_BUFFER_SELECT;
			sqe->buf_group = GROUP;
			sqe->ioprio = multishot ? IORING_RECV_MULTISHOT : 0;
			submit();
		}
		if (is_sqpoll)
			usleep(20000);
		fill(100 + i);
		must(send(pair.fd[0], out.data, 100 + i, 0), "send");
		done = completion();
		say("recv chosen", "recvfrom", &pair, 1, done.res, provided[done.flags >> IORING_CQE_BUFFER_SHIFT]);
	}
	close(pair.fd[0]); /* ends the multishot request */
	if (multishot && done.flags & IORING_CQE_F_MORE)
		completion();
	close(pair.fd[1]);
	sqe = request(IORING_OP_REMOVE_BUFFERS, -1, NULL, 0, 0);
	sqe->fd = N_PROVIDED;
	sqe->buf_group = GROUP;
	submit();
	completion();
}

/* While a request waits its descriptor becomes that of another connection. */
static void replaced(void)
{
	struct pair first = connected(SOCK_STREAM), second = connected(SOCK_STREAM);
	struct done done;

	printf("{\"begin\": \"replaced\"}\n");
	ask(IORING_OP_RECV, first.fd[1], &in, 64);
	if (is_sqpoll || is_async)
		usleep(20000);
	dup2(second.fd[1], first.fd[1]);
	fill(9);
	must(send(first.fd[0], out.data, 9, 0), "send");
	done = completion();
	say("recv", "recvfrom", &first, 1, done.res, in.data);
	close(first.fd[0]);
	close(first.fd[1]);
	close(second.fd[0]);
	close(second.fd[1]);
}

/* Requests that move nothing, or not over sockets: three receives without a result, and a pipe. */
static void nothing(void)
{
	struct pair pair = connected(SOCK_STREAM);
	int unconnected = bound(SOCK_STREAM), ends[2];

	printf("{\"begin\": \"nothing\"}\n");
	shutdown(pair.fd[0], SHUT_WR);
	ask(IORING_OP_RECV, pair.fd[1], &in, 64);
	completion();
	ask(IORING_OP_RECV, unconnected, &in, 64);
	completion();
	ask(IORING_OP_SENDMSG, unconnected, &out, 64);
	completion();
	must(pipe(ends), "pipe");
	ask(IORING_OP_WRITE, ends[1], &out, 64);
	completion();
	ask(IORING_OP_READ, ends[0], &in, 64);
	completion();
	close(pair.fd[0]);
	close(pair.fd[1]);
	close(unconnected);
	close(ends[0]);
	close(ends[1]);
}

/* Connections that are made by requests: one accepts as often as there is something. */
static void made(void)
{
	struct sockaddr_in address;
	socklen_t bytes = sizeof(address);
	int listener = bound(SOCK_STREAM), client, server = -1, i;
	struct done done[2];

	printf("{\"begin\": \"made\"}\n");
	must(listen(listener, 2), "listen");
	must(getsockname(listener, (struct sockaddr *)&address, &bytes), "getsockname");
	request(IORING_OP_ACCEPT, listener, NULL, 0, 55)->ioprio = IORING_ACCEPT_MULTISHOT;
	submit();
	for (i = 0; i < 2; i++) {
		client = bound(SOCK_STREAM);
		request(IORING_OP_CONNECT, client, &address, 0, 66)->off = bytes;
		submit();
		done[0] = completion();
		done[1] = completion();
		server = done[done[1].user_data == 55].res;
		must(done[done[1].user_data != 55].res, "connect");
		must(server, "accept");
		printf("{\"made\": %d, \"with\": %d}\n", port_of(client), port_of(listener));
		close(client);
		close(server);
	}
	close(listener);
}

int main(int argc, char **argv)
{
	struct pair early;
	struct done done;
	char line[16];

	is_async = argc > 1 && !strcmp(argv[1], "async");
	is_sqpoll = argc > 1 && !strcmp(argv[1], "sqpoll");
	is_fixed = argc > 1 && !strcmp(argv[1], "fixed");
	if (is_sqpoll)
		setup_flags = IORING_SETUP_SQPOLL;
	if (argc > 1 && !strcmp(argv[1], "defer"))
		setup_flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
	ring_open();
	early = connected(SOCK_STREAM);
	ask(IORING_OP_RECV, early.fd[1], &in, 64); /* waits before it is traced */
	usleep(50000); /* until a worker has taken it */
	printf("ready\n");
	fflush(stdout);
	if (!fgets(line, sizeof(line), stdin))
		return 1;
	fill(30);
	must(send(early.fd[0], out.data, 30, 0), "send");
	done = completion();
	say("recv early", "recvfrom", &early, 1, done.res, in.data);
	transfers("tcp", SOCK_STREAM);
	transfers("udp", SOCK_DGRAM);
	chosen(0);
	chosen(1);
	replaced();
	nothing();
	made();
	return 0;
}
