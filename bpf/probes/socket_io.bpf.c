/* SPDX-License-Identifier: Apache-2.0
 * Bytes that processes move over sockets: an enter and an exit hook for every line of syscalls.def. */
#include "../lib/leave.bpf.h"

/* Macros may only call functions: BCC rejects map calls inside them. */
#define DT_FLAGS_OF_none(args) 0
#define DT_FLAGS_OF_flags(args) (args)->flags
#define DT_PEER_OF_none(args) 0
#define DT_PEER_OF_addr(args) (__u64)(args)->addr
#define DT_ROOM_OF_none(args) 0
#define DT_ROOM_OF_addr(args) (__u64)(args)->addr_len
#define DT_SYSCALL(number, name, direction, shape, descriptor, buffer_field, count_field, flags, peer_field) \
	int dt_enter_##name(struct tracepoint__syscalls__sys_enter_##name *args) \
	{ \
		struct dt_arguments arguments = { \
			.ctx = args, \
			.fd = args->descriptor, \
			.call_flags = DT_FLAGS_OF_##flags(args), \
			.buffer = (__u64)args->buffer_field, \
			.count = (__u64)args->count_field, \
			.peer = DT_PEER_OF_##peer_field(args), \
			.peer_room = DT_ROOM_OF_##peer_field(args), \
		}; \
\
		return dt_call_enter(number, DT_##direction, DT_SHAPE_##shape, &arguments); \
	} \
	int dt_exit_##name(struct tracepoint__syscalls__sys_exit_##name *args) \
	{ \
		return dt_call_exit(args, number, DT_##direction, DT_SHAPE_##shape, args->ret); \
	}
#include "../include/syscalls.def"
#undef DT_SYSCALL
