"""Attaches programs to system call tracepoints and detaches them again, and makes the empty program: the floor.

An event that is only disabled still runs its programs, so a set that shall cost nothing has to be detached: 75 ms per event,
the kernel waits for grace periods one after the other. Attaching all is done in 3 ms.
"""

import ctypes
import fcntl
import os
import pathlib
import re
from collections.abc import Iterable

from deeptrace.errors import DeepTraceError
from deeptrace.loader.rings import PerfEventAttr
from deeptrace.loader.sys_numbers import bpf, perf_event_open

# linux/bpf.h, linux/perf_event.h
PROG_LOAD, RAW_TRACEPOINT_OPEN = 5, 17
TYPE_TRACEPOINT_PROGRAM = 5
TYPE_TRACEPOINT_EVENT = 2
IOC_ENABLE, IOC_SET_BPF = 0x2400, 0x40042408
SAMPLE_RAW = 1 << 10
OPEN_CLOEXEC = 1 << 3
EVENTS = (pathlib.Path("/sys/kernel/tracing/events/syscalls"), pathlib.Path("/sys/kernel/debug/tracing/events/syscalls"))
HOOK = re.compile(r"dt_(?P<kind>enter|exit|raw)_(?P<event>\w+)")  # a function's name says where it belongs
EMPTY_PROGRAM = bytes((0xB7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0))  # r0 = 0; exit


class LoadCall(ctypes.Structure):
    """union bpf_attr of BPF_PROG_LOAD, its first part."""

    _fields_ = (
        ("kind", ctypes.c_uint32),
        ("n_instructions", ctypes.c_uint32),
        ("instructions", ctypes.c_uint64),
        ("license", ctypes.c_uint64),
    )


class RawCall(ctypes.Structure):
    """union bpf_attr of BPF_RAW_TRACEPOINT_OPEN."""

    _fields_ = (("name", ctypes.c_uint64), ("program", ctypes.c_uint32), ("pad", ctypes.c_uint32))


def load_program(kind: int, code: bytes) -> int:
    """A descriptor of a program of raw instructions. Raises OSError."""
    license_name = ctypes.create_string_buffer(b"Dual BSD/GPL")
    instructions = ctypes.create_string_buffer(code, len(code))
    call = LoadCall(kind=kind, n_instructions=len(code) // 8)
    call.instructions, call.license = ctypes.addressof(instructions), ctypes.addressof(license_name)
    return bpf(PROG_LOAD, call)


def event_number(kind: str, syscall: str) -> int:
    for folder in EVENTS:
        path = folder / f"sys_{kind}_{syscall}" / "id"
        if path.exists():
            return int(path.read_text())
    raise DeepTraceError(f"this kernel has no tracepoint sys_{kind}_{syscall}; run 'deeptrace doctor'")


def attach(kind: str, syscall: str, program: int) -> int:
    """Attach to enter or exit of a system call; the descriptor that holds it."""
    attributes = PerfEventAttr(
        type=TYPE_TRACEPOINT_EVENT, size=64, config=event_number(kind, syscall), sample_period=1, sample_type=SAMPLE_RAW
    )
    event = perf_event_open(attributes, pid=-1, cpu=0, flags=OPEN_CLOEXEC)
    fcntl.ioctl(event, IOC_SET_BPF, program)
    fcntl.ioctl(event, IOC_ENABLE, 0)
    return event


def attach_raw(event: str, program: int) -> int:
    name = ctypes.create_string_buffer(event.encode())
    return bpf(RAW_TRACEPOINT_OPEN, RawCall(name=ctypes.addressof(name), program=program))


class Attachable:
    """A set of loaded programs that is attached and detached as a whole."""

    def __init__(self, programs: Iterable[tuple[str, int]], *, owned: tuple[int, ...] = ()) -> None:
        """programs: (function name as the probes' files give it, descriptor); owned: descriptors closed with the set."""
        self._programs = [(match, fd) for name, fd in programs if (match := HOOK.fullmatch(name))]
        self.owned = owned
        self._held: list[int] = []

    def attach(self) -> None:
        for match, fd in self._programs if not self._held else ():
            kind, event = match["kind"], match["event"]
            self._held.append(attach_raw(event, fd) if kind == "raw" else attach(kind, event, fd))

    def adopt(self, held: list[int]) -> None:
        """Take over what somebody else attached."""
        self._held.extend(held)

    def detach(self) -> None:
        for fd in self._held:
            os.close(fd)
        self._held.clear()

    def close(self) -> None:
        self.detach()
        for fd in self.owned:
            os.close(fd)
        self.owned = ()


def empty_set(syscalls: Iterable[str]) -> Attachable:
    """One empty program on enter and exit of each call."""
    program = load_program(TYPE_TRACEPOINT_PROGRAM, EMPTY_PROGRAM)
    hooks = ((f"dt_{kind}_{name}", program) for name in syscalls for kind in ("enter", "exit"))
    return Attachable(hooks, owned=(program,))
