/* SPDX-License-Identifier: Apache-2.0
 * Reads of the kernel's memory. Where the kernel offers it (6.2 and later: DT_BTF_CAST) an address is given its type, which
 * the verifier knows from BTF, and what follows are plain loads: 1 ns each, and 0 when the address is bad. From 5.11 on
 * (DT_BTF_TASK) at least the current task and what its fields point to have types. Elsewhere each read is a call of a
 * helper, 8-20 ns. Which of the three is the loader's choice. */
#pragma once
#include <linux/types.h>

#ifdef DT_BTF_CAST
/* The loader puts the kernel's bpf_rdonly_cast in the place of this call. */
static void *(*dt_cast)(__u64 address, __u32 type) = (void *)DT_BTF_CAST;
#define DT_TYPED(name, address) dt_cast((__u64)(address), DT_TYPE_##name)
#define DT_LOAD(type, pointer, offset) (*(type *)((pointer) + (offset)))
#else
#define DT_TYPED(name, address) ((void *)(address))
#define DT_LOAD(type, pointer, offset) \
	({ \
		type dt_value = 0; \
		bpf_probe_read_kernel(&dt_value, sizeof(dt_value), (const void *)((pointer) + (offset))); \
		dt_value; \
	})
#endif

#ifdef DT_BTF_TASK
#define DT_TASK_LOAD(type, pointer, offset) (*(type *)((pointer) + (offset)))
static __always_inline void *dt_current_task(void)
{
	return (void *)bpf_get_current_task_btf();
}
#else
#define DT_TASK_LOAD DT_LOAD
static __always_inline void *dt_current_task(void)
{
	return (void *)bpf_get_current_task();
}
#endif

/* At an address of any kind. */
static __always_inline __u64 dt_kernel_u64(__u64 address)
{
	__u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (const void *)address);
	return value;
}

static __always_inline __u32 dt_kernel_u32(__u64 address)
{
	__u32 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (const void *)address);
	return value;
}

static __always_inline __u16 dt_kernel_u16(__u64 address)
{
	__u16 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (const void *)address);
	return value;
}
