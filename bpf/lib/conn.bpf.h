/* SPDX-License-Identifier: Apache-2.0
 * The beginnings of connections, by system call or by io_uring request, and the records of all that happens to them. Keeps
 * nothing but what SOCKETS holds. */
#pragma once
#include "armed.bpf.h"
#include "emit.bpf.h"
#include "log.bpf.h"
#include "process.bpf.h"
#include "remember.bpf.h"
#include "thread.bpf.h"

#define DT_EINPROGRESS 115     /* asm-generic/errno.h; x86, arm64, riscv, s390, powerpc */

struct dt_conn_record {
	struct dt_record record;
	struct dt_process process; /* of connect and accept */
};

/* Fill in and emit a connection record. id: tgid and tid of the call behind it, 0 when there is none. */
static __always_inline void dt_conn_emit(void *ctx, struct dt_config *config, __u8 event, __u64 sk, const struct dt_identity *who,
					 __u64 id, __u64 enter_ns, int result)
{
	struct dt_conn_record conn = {};
	__u64 bytes = sizeof(conn.record);

	conn.record.exit_ns = bpf_ktime_get_ns();
	if (dt_lapses(config, conn.record.exit_ns))
		return;
	conn.record.enter_ns = enter_ns ? enter_ns : conn.record.exit_ns;
	conn.record.socket = sk;
	conn.record.tuple = who->tuple;
	conn.record.netns = who->netns;
	conn.record.tgid = id >> 32;
	conn.record.tid = id;
	conn.record.result = result;
	conn.record.kind = DT_KIND_CONN;
	conn.record.code = event;
	if (id) {
		dt_process_fill(&conn.process, bpf_get_current_task());
		conn.record.payload_len = sizeof(conn.process);
		bytes = sizeof(conn);
	}
	dt_count(DT_COUNT_CONN_EMITTED);
	dt_emit_event(ctx, &conn.record, bytes);
}

/* The configuration if the current thread is traced, else NULL. */
static __always_inline struct dt_config *dt_conn_config(void)
{
	struct dt_config *config = dt_armed();

	return config && dt_thread_traced(config, bpf_get_current_pid_tgid(), 0) ? config : NULL;
}

static __always_inline int dt_is_unix(const struct dt_identity *who)
{
	return who->tuple.family == DT_AF_UNIX;
}

static __always_inline int dt_is_tcp(const struct dt_identity *who)
{
	return who->followed && who->tuple.l4_protocol == DT_IPPROTO_TCP;
}

/* A new socket: its address may have been another's before, of whose end nothing told. */
static __always_inline void dt_socket_made(int fd)
{
	struct dt_config *config = dt_conn_config();
	__u64 sk = config && fd >= 0 ? dt_socket_of(config, fd) : 0;

	if (sk)
		dt_socket_end(sk);
}

/* A socket is about to be connected. Returns 0 if it is none that is followed. */
static __always_inline int dt_connects(const struct dt_config *config, __u64 sk)
{
	struct dt_identity who = {};

	dt_identify(&who, config, sk);
	if (!dt_is_tcp(&who) && !(dt_is_unix(&who) && config->unix_sockets))
		return 0;
	/* Remembered from here on: a connection that fails at once changes its state before the call returns. */
	if (dt_is_tcp(&who) && who.tuple.tcp_state == DT_TCP_CLOSE)
		dt_socket_begin(config, sk, NULL, DT_SOCKET_FRESH);
	return 1;
}

/* This came of connecting it. */
static __always_inline void dt_connected(void *ctx, struct dt_config *config, __u64 sk, __u64 enter_ns, int result)
{
	struct dt_identity who = {};
	struct dt_socket_info *info;

	dt_identify(&who, config, sk);
	if (who.tuple.tcp_state == DT_TCP_CLOSE) {
		dt_socket_end(sk);
		return;
	}
	if (!who.followed || (result && result != -DT_EINPROGRESS))
		return;
	if (dt_is_unix(&who))
		dt_socket_begin(config, sk, &who.tuple, DT_SOCKET_FRESH);
	info = SOCKETS.lookup(&sk);
	if (!info || info->flags & DT_SOCKET_CONNECTED)
		return;
	info->flags |= DT_SOCKET_CONNECTED;
	dt_socket_judge(config, info, &who.tuple); /* its ends were not known when it was begun */
	if (!(info->flags & DT_SOCKET_IGNORED))
		dt_conn_emit(ctx, config, DT_CONN_CONNECT, sk, &who, bpf_get_current_pid_tgid(), enter_ns, result);
}

/* Begin a socket that has its ends from the start. Returns 1 if it is one that is followed. */
static __always_inline int dt_conn_begin(const struct dt_config *config, int fd, __u64 *sk, struct dt_identity *who)
{
	struct dt_socket_info *info;

	*sk = dt_socket_of(config, fd);
	if (!*sk)
		return 0;
	dt_identify(who, config, *sk);
	/* Reset before it was accepted: it ended already, nobody would end it again. */
	if (!who->followed || who->tuple.l4_protocol == DT_IPPROTO_UDP || who->tuple.tcp_state == DT_TCP_CLOSE)
		return 0;
	dt_socket_begin(config, *sk, &who->tuple, DT_SOCKET_FRESH);
	info = SOCKETS.lookup(sk);
	return !info || !(info->flags & DT_SOCKET_IGNORED);
}

static __always_inline int dt_accepted(void *ctx, long fd)
{
	struct dt_config *config = dt_conn_config();
	struct dt_identity who = {};
	__u64 sk;

	if (config && fd >= 0 && dt_conn_begin(config, fd, &sk, &who))
		dt_conn_emit(ctx, config, DT_CONN_ACCEPT, sk, &who, bpf_get_current_pid_tgid(), 0, 0);
	return 0;
}
