/* SPDX-License-Identifier: Apache-2.0
 * Bytes that processes move over sockets: an enter and an exit hook for every line of syscalls.def. */
#include "../lib/leave.bpf.h"

/* Macros may only call functions: BCC rejects map calls inside them. */
#define DT_FLAGS_OF_none(args) 0
#define DT_FLAGS_OF_flags(args) (args)->flags
#define DT_SYSCALL(number, name, direction, shape, descriptor, buffer, count, flags) \
	int dt_enter_##name(struct tracepoint__syscalls__sys_enter_##name *args) \
	{ \
		return dt_call_enter(number, DT_##direction, args->descriptor, (__u64)args->buffer, (__u64)args->count, \
				     DT_FLAGS_OF_##flags(args)); \
	} \
	int dt_exit_##name(struct tracepoint__syscalls__sys_exit_##name *args) \
	{ \
		return dt_call_exit(args, number, DT_##direction, DT_SHAPE_##shape, args->ret); \
	}
#include "../include/syscalls.def"
#undef DT_SYSCALL
