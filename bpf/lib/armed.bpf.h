/* SPDX-License-Identifier: Apache-2.0
 * Whether the hooks have anything to do. The agent says so by writing CONFIG, and has to say it again before its deadline: an
 * agent that hangs or is stopped costs the traced programs nothing. */
#pragma once
#include "counters.bpf.h"

/* The configuration, or NULL while the hooks are not armed or nobody listens. */
static __always_inline struct dt_config *dt_armed(void)
{
	int zero = 0;
	struct dt_config *config = CONFIG.lookup(&zero);

	return config && config->socket_fops && !config->lapsed ? config : NULL;
}

/* Whether the agent's deadline has passed; from then on dt_armed says no. */
static __always_inline int dt_lapses(struct dt_config *config, __u64 now_ns)
{
	if (!config->deadline_ns || now_ns <= config->deadline_ns)
		return 0;
	config->lapsed = 1;
	dt_count(DT_COUNT_LAPSED);
	return 1;
}
