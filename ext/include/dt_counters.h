/* SPDX-License-Identifier: Apache-2.0
 * The counter numbers of counters.def as C constants, and the array they index. */
#ifndef DT_COUNTERS_H
#define DT_COUNTERS_H

#define DT_N_COUNTERS 256

enum dt_counter_number {
#define DT_COUNTER(number, NAME, stage, kind, help) DT_COUNT_##NAME = number,
#include "counters.def"
#undef DT_COUNTER
};

#endif
