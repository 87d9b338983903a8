/* SPDX-License-Identifier: Apache-2.0
 * Whose calls are followed. Kernel threads make no system calls, so nothing needs to keep them out. */
#pragma once
#include "maps.bpf.h"

/* The configuration, or NULL while the hooks are not armed. */
static __always_inline struct dt_config *dt_armed(void)
{
	int zero = 0;
	struct dt_config *config = CONFIG.lookup(&zero);

	return config && config->socket_fops ? config : NULL;
}

static __always_inline int dt_is_traced(const struct dt_config *config, __u32 tgid)
{
	__u32 *flags = PIDS.lookup(&tgid);

	if (!flags)
		return config->all_processes;
	if (*flags & DT_PID_DENY)
		return 0;
	return (*flags & DT_PID_TRACE) || config->all_processes;
}
