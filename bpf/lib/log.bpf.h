/* SPDX-License-Identifier: Apache-2.0
 * The probes' own log. In a release build nothing of it is left, arguments included. A line costs a record on the stack of its hook (144
 * of 512 bytes), so it belongs where something is decided or goes wrong. */
#pragma once
#include "emit.bpf.h"

#ifdef DT_DEBUG
enum dt_log_message {
#define DT_LOG(number, level, name, sentence) DT_SAY_##name = number, DT_LEVEL_OF_##name = DT_LOG_##level,
#include "logs.def"
#undef DT_LOG
};

struct dt_log_record {
	struct dt_record record;
	struct dt_log log;
};

static __always_inline void dt_log_emit(void *ctx, __u32 message, __u32 level, __u64 a, __u64 b, __u64 c)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct dt_log_record line = {};
	int zero = 0;
	struct dt_config *config = CONFIG.lookup(&zero);

	if (!config || level > config->log_level)
		return;
	line.record.enter_ns = line.record.exit_ns = bpf_ktime_get_ns();
	line.record.tgid = id >> 32;
	line.record.tid = id;
	line.record.payload_len = sizeof(line.log);
	line.record.kind = DT_KIND_LOG;
	line.log.message = message;
	line.log.level = level;
	line.log.values[0] = a;
	line.log.values[1] = b;
	line.log.values[2] = c;
	dt_count(DT_COUNT_LOG_EMITTED);
	dt_emit_event(ctx, &line.record, sizeof(line));
}
#define dt_log(ctx, name, a, b, c) \
	dt_log_emit(ctx, DT_SAY_##name, DT_LEVEL_OF_##name, (__u64)(a), (__u64)(b), (__u64)(c))
#else
#define dt_log(ctx, name, a, b, c) \
	do { \
		if (0) \
			(void)(ctx), (void)(a), (void)(b), (void)(c); \
	} while (0)
#endif
