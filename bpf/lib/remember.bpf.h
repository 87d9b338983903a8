/* SPDX-License-Identifier: Apache-2.0
 * What is remembered of a socket between calls: its head still to be captured whole, and that it was seen. */
#pragma once
#include "counters.bpf.h"
#include "socket.bpf.h"

#define DT_LIMIT_OF_CONFIG 0xffffffff

/* Begin (again) to remember a socket; flags: DT_SOCKET_*. */
static __always_inline void dt_socket_begin(const struct dt_config *config, __u64 sk, __u32 flags)
{
	struct dt_socket_info info = {
		.head_left = { config->head_bytes, config->head_bytes },
		.payload_limit = DT_LIMIT_OF_CONFIG,
		.flags = flags,
	};

	if (SOCKETS.update(&sk, &info) < 0)
		dt_count(DT_COUNT_SOCKET_FORGOTTEN);
}

/* What is remembered of a socket that moves bytes; begun if it is new. NULL: nothing can be remembered.
 * A TCP socket that is closed already (its last bytes are being read) is not taken up again: nobody would end it. */
static __always_inline struct dt_socket_info *dt_socket_recall(const struct dt_config *config, __u64 sk, __u8 l4_protocol)
{
	struct dt_socket_info *info = SOCKETS.lookup(&sk);
	__u8 state = 0;

	if (info)
		return info;
	if (l4_protocol == DT_IPPROTO_TCP) {
		bpf_probe_read_kernel(&state, sizeof(state), (const void *)(sk + DT_OFF_SKC_STATE));
		if (state == DT_TCP_CLOSE)
			return NULL;
	}
	dt_socket_begin(config, sk, 0);
	return SOCKETS.lookup(&sk);
}
