"""Writes the header tree that BCC compiles against, so that no kernel headers are needed. Holds only what BCC's own
text and the generated tracepoint structures name; kernel structures come from BTF (btf.py)."""

from __future__ import annotations

import pathlib
import re

# Names that tracepoint formats use for their fields' types, and that userspace headers do not have.
TYPES = """#ifndef DT_TREE_TYPES
#define DT_TREE_TYPES
typedef unsigned char __u8; typedef unsigned short __u16; typedef unsigned int __u32; typedef unsigned long long __u64;
typedef signed char __s8; typedef short __s16; typedef int __s32; typedef long long __s64;
typedef __u8 u8; typedef __u16 u16; typedef __u32 u32; typedef __u64 u64;
typedef __s8 s8; typedef __s16 s16; typedef __s32 s32; typedef __s64 s64;
typedef __u16 __be16; typedef __u32 __be32; typedef __u64 __be64; typedef __u16 __le16; typedef __u32 __le32; typedef __u64 __le64;
typedef __u16 __sum16; typedef __u32 __wsum; typedef unsigned int __poll_t; typedef __u64 __aligned_u64;
typedef unsigned long uintptr_t; typedef unsigned long size_t; typedef long ssize_t; typedef _Bool bool;
typedef int pid_t; typedef unsigned int uid_t; typedef unsigned int gid_t; typedef unsigned int dev_t; typedef long long loff_t;
typedef unsigned short umode_t; typedef __u64 sector_t; typedef long off_t; typedef unsigned int gfp_t; typedef int key_t;
typedef int clockid_t; typedef int timer_t; typedef unsigned int qid_t; typedef unsigned long aio_context_t; typedef int mqd_t;
enum skb_drop_reason { DT_SKB_DROP_REASON };
enum sk_rst_reason { DT_SK_RST_REASON };
#define NULL ((void *)0)
#define __always_inline inline __attribute__((always_inline))
#endif
"""
EMPTY = (
    "include/uapi/linux/bpf.h",  # BCC includes a copy of its own
    "include/uapi/linux/if_ether.h",
    "include/uapi/linux/if_packet.h",
    "include/uapi/linux/ptrace.h",
    "include/linux/bpf_common.h",
    "include/linux/log2.h",
)
# kernel release machine -> name of its folder in the kernel's tree, which BCC puts on the include path
ARCHES = {"x86_64": "x86", "aarch64": "arm64", "riscv64": "riscv", "s390x": "s390", "ppc64le": "powerpc", "ppc64": "powerpc"}


def version_header(release: str) -> str:
    """linux/version.h of a release such as 6.1.0-25-amd64; sublevels above 255 count as 255, as the kernel does."""
    match = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", release)
    major, minor, sublevel = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    code = (major << 16) + (minor << 8) + min(sublevel, 255)
    return (
        f"#define LINUX_VERSION_CODE {code}\n#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + ((c) > 255 ? 255 : (c)))\n"
    )


def write_header_tree(folder: pathlib.Path, *, release: str, machine: str, page_bytes: int) -> None:
    """Write the tree into an empty folder, to be named in BCC_KERNEL_SOURCE."""
    arch = ARCHES.get(machine, machine)
    files = {
        "include/linux/kconfig.h": "#define CONFIG_BPF_SYSCALL 1\n#define __user\n#define __kernel\n",
        "include/linux/version.h": version_header(release),
        "include/linux/types.h": TYPES,
        "include/uapi/linux/types.h": TYPES,
        f"arch/{arch}/include/asm/page.h": f"#define PAGE_SIZE {page_bytes}UL\n",
    }
    files.update({name: "" for name in EMPTY})
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
