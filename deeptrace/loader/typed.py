"""Plain loads of the kernel's memory, where the kernel offers them: the probes call a helper that does not exist, and here each
such call becomes one of the kernel's cast function, which BCC has no way to name. Changes bytecode before it is loaded."""

from __future__ import annotations

import ctypes
import re
import struct
from typing import Any

from .btf import TypeNumbers

PLACE = 0x7F0001  # number of the helper that does not exist
INSTRUCTION = struct.Struct("=BBhi")  # struct bpf_insn: code, registers, off, imm
CALL = 0x85  # BPF_JMP | BPF_CALL
KERNEL_FUNCTION = 0x20  # BPF_PSEUDO_KFUNC_CALL as source register


TYPED_TASK_SINCE = (5, 11)  # bpf_get_current_task_btf


def flags(types: TypeNumbers | None, release: str) -> list[str]:
    """What the probes may use of this kernel, as -D flags. release: of uname."""
    chosen = ["-DDT_BTF_TASK"] if kernel_version(release) >= TYPED_TASK_SINCE else []
    if types:
        chosen += [f"-DDT_BTF_CAST={PLACE}", *(f"-DDT_TYPE_{name}={number}" for name, number in types.types.items())]
    return chosen


def kernel_version(release: str) -> tuple[int, ...]:
    """(6, 1) of "6.1.0-56-amd64"."""
    return tuple(int(part) for part in re.findall(r"\d+", release)[:2])


def put_casts(module: Any, types: TypeNumbers) -> int:
    """Put the kernel's function in its place in every function of a compiled BPF module; returns how often."""
    from bcc import lib

    n = 0
    for i in range(lib.bpf_num_functions(module.module)):
        name = lib.bpf_function_name(module.module, i)
        address = lib.bpf_function_start(module.module, name)
        for at in range(address, address + lib.bpf_function_size(module.module, name), INSTRUCTION.size):
            code, _registers, _off, imm = INSTRUCTION.unpack(ctypes.string_at(at, INSTRUCTION.size))
            if code == CALL and imm == PLACE:
                ctypes.memmove(at, INSTRUCTION.pack(CALL, KERNEL_FUNCTION, 0, types.cast), INSTRUCTION.size)
                n += 1
    return n
