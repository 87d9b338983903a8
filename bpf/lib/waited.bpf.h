/* SPDX-License-Identifier: Apache-2.0
 * Calls that waited when tracing began: their enter was not seen, and user space put them where they are found at exit. */
#pragma once
#include "call.bpf.h"

/* Only calls that receive wait so long that tracing may begin meanwhile, one message at a time. */
static __always_inline int dt_may_wait(__u8 direction, __u8 shape)
{
	return direction == DT_INGRESS && shape != DT_SHAPE_MMSGHDR && shape != DT_SHAPE_SPLICE;
}

/* The socket of a call that waited when tracing began, which user space put there with its descriptor. 0: its descriptor was closed and
 * used again, or is no socket. */
static __always_inline __u64 dt_call_adopt(struct dt_inflight *call, const struct dt_config *config)
{
	__u64 file = dt_file_of(call->peer), inode = call->socket;

	dt_count_call(DT_COUNT_CALLS, 1);
	dt_count_call(DT_COUNT_BLOCKED_FOLLOWED, 1);
	call->peer = 0;
	if (inode && inode != dt_kernel_u64(dt_kernel_u64(file + DT_OFF_FILE_INODE) + DT_OFF_INODE_INO))
		return 0;
	return dt_socket_of_file(config, file);
}
