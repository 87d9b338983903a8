"""Times hash map updates, lookups and deletes in the kernel's test runs. The program is assembled here: no compiler needed."""

import ctypes
import os
import struct

from deeptrace.core.wire import SIZEOFS
from deeptrace.loader.sys_numbers import bpf

from .tracepoints import load_program

# linux/bpf.h
MAP_CREATE, PROG_TEST_RUN = 0, 10
TYPE_HASH, TYPE_SOCKET_FILTER = 1, 1
LOOKUP, UPDATE, DELETE = 1, 2, 3  # helpers: bpf_map_*_elem
KEY_BYTES, VALUE_BYTES, MAX_ENTRIES = 8, (SIZEOFS["dt_socket_info"] + 7) // 8 * 8, 131072  # like the map of sockets
KEYS = 100  # a loop over them is one test run
REPEAT = 200  # test runs that the kernel averages over: 4 ms
PASSES = 8  # per round; the faster half of all counts, since a neighbour on the core slows only some
PACKET_BYTES = 64  # test runs want an Ethernet frame
KEY_AT, VALUE_AT = -8, -8 - VALUE_BYTES  # places on the stack
R0, R1, R2, R3, R4, R6, R10 = 0, 1, 2, 3, 4, 6, 10
MOV_IMM, MOV_REG, ADD_IMM, MUL_IMM, STORE_64, STORE_IMM_64, CALL, EXIT, JUMP_LESS, LOAD_MAP = (
    0xB7, 0xBF, 0x07, 0x27, 0x7B, 0x7A, 0x85, 0x95, 0xA5, 0x18
)  # fmt: skip


class CreateCall(ctypes.Structure):
    """union bpf_attr of BPF_MAP_CREATE, its first part."""

    _fields_ = tuple((name, ctypes.c_uint32) for name in ("kind", "key_bytes", "value_bytes", "max_entries", "flags"))


class TestRunCall(ctypes.Structure):
    """union bpf_attr of BPF_PROG_TEST_RUN."""

    _fields_ = (
        ("program", ctypes.c_uint32),
        ("result", ctypes.c_uint32),
        ("data_bytes", ctypes.c_uint32),
        ("data_out_bytes", ctypes.c_uint32),
        ("data", ctypes.c_uint64),
        ("data_out", ctypes.c_uint64),
        ("repeat", ctypes.c_uint32),
        ("duration_ns", ctypes.c_uint32),
    )


def instruction(code: int, target: int = 0, source: int = 0, offset: int = 0, number: int = 0) -> bytes:
    return struct.pack("<BBhi", code, source << 4 | target, offset, number)


def map_call(map_fd: int, helper: int) -> bytes:
    """Call a helper with the map, the key on the stack and, for an update, the value on the stack."""
    parts = [instruction(LOAD_MAP, R1, 1, 0, map_fd), instruction(0)]
    parts += [instruction(MOV_REG, R2, R10), instruction(ADD_IMM, R2, number=KEY_AT)]
    if helper == UPDATE:
        parts += [instruction(MOV_REG, R3, R10), instruction(ADD_IMM, R3, number=VALUE_AT), instruction(MOV_IMM, R4)]
    return b"".join([*parts, instruction(CALL, number=helper)])


def program(map_fd: int, helpers: tuple[int, ...]) -> bytes:
    """A loop over KEYS keys that calls these helpers on each."""
    start = b"".join(instruction(STORE_IMM_64, R10, offset=VALUE_AT + at) for at in range(0, VALUE_BYTES, 8))
    start += instruction(MOV_IMM, R6)
    body = instruction(MOV_REG, R1, R6) + instruction(MUL_IMM, R1, number=40503) + instruction(STORE_64, R10, R1, KEY_AT)
    body += b"".join(map_call(map_fd, helper) for helper in helpers) + instruction(ADD_IMM, R6, number=1)
    back = instruction(JUMP_LESS, R6, offset=-len(body) // 8 - 1, number=KEYS)
    return start + body + back + instruction(MOV_IMM, R0) + instruction(EXIT)


def run_ns(program_fd: int) -> int:
    """ns of one run of the program, the mean of REPEAT."""
    packet = ctypes.create_string_buffer(PACKET_BYTES)
    call = TestRunCall(program=program_fd, data_bytes=PACKET_BYTES, data=ctypes.addressof(packet), repeat=REPEAT)
    bpf(PROG_TEST_RUN, call)
    return int(call.duration_ns)


def map_op_ns(n_rounds: int) -> list[float]:
    """ns of one map operation, the mean of update, lookup and delete; figures of single passes, ascending."""
    map_fd = bpf(MAP_CREATE, CreateCall(TYPE_HASH, KEY_BYTES, VALUE_BYTES, MAX_ENTRIES, 0))
    loaded: list[int] = []
    try:
        loaded += [load_program(TYPE_SOCKET_FILTER, program(map_fd, helpers)) for helpers in ((UPDATE, LOOKUP, DELETE), ())]
        found = sorted((run_ns(loaded[0]) - run_ns(loaded[1])) / (3 * KEYS) for _ in range(n_rounds * PASSES))
        return found[: (len(found) + 1) // 2]
    finally:
        for fd in (map_fd, *loaded):
            os.close(fd)
