"""The loaded probes as the agent holds them: descriptors, settings, counters. Loads nothing; nothing outlives close()."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from deeptrace.core.wire import BATCH_BYTES
from deeptrace.errors import ProbeError
from deeptrace.loader import maps
from deeptrace.loader.detach import close_together
from deeptrace.loader.rules import KINDS, Key, RuleMaps

DEADLINE_NS = 5_000_000_000  # without a refresh for so long the hooks do nothing: the agent hangs or is stopped
LAST_EPOCH = 0xFFFFFFFF  # of CONFIG.filter_epoch; 0 is no epoch


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """What the probes capture (may change while they run), and the sizes of their maps (fixed; preallocated, so they cost memory at
    once). events_per_s, bytes_per_s: bounds of one CPU, 0 for none; batch_bytes: records wait on their CPU until so many bytes have
    come, 0 emits each at once; log_level: of debug builds, 0 for nothing."""

    all_processes: bool = False
    payload_bytes: int = 1024
    head_bytes: int = 4096
    events_per_s: int = 0
    bytes_per_s: int = 0
    batch_bytes: int = 4096  # some 15 records of usual size, each of which would cost as much alone as all of them
    unix_sockets: bool = False
    log_level: int = 0
    max_pids: int = 65536  # 64 B each: 4 MB; every process of a busy host
    max_threads: int = 65536  # 250 B each; no more than kernel.pid_max are made: 32,768 by default, 8 MB. A power of two
    max_threads_more: int = 8192  # threads that share an index with another, where pid_max is larger
    max_connecting: int = 8192  # connect(2) calls in flight at one moment
    max_sockets: int = 131072  # 110 B each: 14 MB; the oldest is forgotten first
    max_limits: int = 65536  # 64 B each: 4 MB; connections whose limit is not the default
    max_rules: int = 1024  # of each kind
    max_uring: int = 8192  # io_uring requests in flight

    def map_sizes(self) -> dict[str, int]:
        """By the names of -DDT_MAX_... Raises ProbeError."""
        if self.max_threads <= 0 or self.max_threads & (self.max_threads - 1):
            raise ProbeError(f"a map of {self.max_threads} threads is not possible; use a power of two")
        if not 0 <= self.batch_bytes <= BATCH_BYTES:
            raise ProbeError(f"records cannot wait until {self.batch_bytes} bytes have come; the most is {BATCH_BYTES}")
        return {
            "PIDS": self.max_pids,
            "THREADS": self.max_threads,
            "THREADS_MORE": self.max_threads_more,
            "CONNECTING": self.max_connecting,
            "SOCKETS": self.max_sockets,
            "LIMITS": self.max_limits,
            "RULES": self.max_rules,
            "URING": self.max_uring,
        }


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What was loaded. groups: {group: its tracepoints}; disabled: {group: sentence}; seconds: inside the loader; selftest: what
    the known-answer test found (loader/selftest.py), empty: not done; debug: the build that logs."""

    groups: dict[str, list[str]]
    disabled: dict[str, str]
    warnings: list[str]
    kernel: str
    btf: str
    tracefs_mounted: bool
    compile_s: float
    seconds: float
    selftest: dict[str, Any] = field(default_factory=dict)
    debug: bool = False


@dataclass(kw_only=True)
class Probes:
    """The loaded probes: all descriptors are owned here, and closing them detaches everything.

    ring_fds: {cpu: perf event}; not mapped yet. map_fds: {name: map}; EVENTS must stay open or the rings are taken out. Any
    thread may change settings and filters.
    """

    ring_fds: dict[int, int]
    map_fds: dict[str, int]
    program_fds: dict[str, int]
    keep_fds: list[int]
    report: LoadReport
    config: ProbeConfig
    sizeofs: dict[str, int]
    socket_fops: int
    ring_bytes: int = 0  # data area of each
    pids: maps.PidMap = field(init=False)
    limits: maps.LimitMap = field(init=False)
    rules: RuleMaps = field(init=False)
    _counts: maps.MappedArray = field(init=False)
    _threads: maps.MappedArray = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _closed: bool = field(default=False, init=False)
    _armed: bool = field(default=False, init=False)
    _deadline_ns: int = field(default=0, init=False)
    _epoch: int = field(default=1, init=False)
    _rules_mask: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.pids = maps.PidMap(self.map_fds["PIDS"], self.bump)
        self.limits = maps.LimitMap(self.map_fds["LIMITS"])
        self.rules = RuleMaps(self.map_fds, self._rules_changed)
        self._counts = maps.map_counts(self.map_fds["COUNTERS"])
        self._threads = maps.map_threads(self.map_fds["THREADS"])

    @property
    def batches_fd(self) -> int:
        """Map BATCHES, for Rings."""
        return self.map_fds["BATCHES"]

    def arm(self, config: ProbeConfig | None = None, *, now_ns: int | None = None) -> None:
        """Start capturing, or go on with new settings; sizes stay as they are. now_ns (CLOCK_MONOTONIC): the hooks stop by
        themselves unless refresh() follows within DEADLINE_NS; 0: they do not; None: the deadline is as it was."""
        with self._lock:
            self.config = config or self.config
            self._armed = True
            if now_ns is not None:
                self._deadline_ns = now_ns + DEADLINE_NS if now_ns else 0
            self._write()

    def refresh(self, now_ns: int) -> None:
        """Say that somebody reads the rings: the hooks go on until now_ns + DEADLINE_NS, again if they had stopped. Call it
        about once a second."""
        with self._lock:
            self._deadline_ns = now_ns + DEADLINE_NS
            if self._armed:
                self._write()

    def disarm(self) -> None:
        """Stop capturing; calls in flight are still recorded."""
        with self._lock:
            self._armed = False
            self._write()

    def bump(self) -> None:
        """Let the probes decide again for every thread whether it is traced. `pids` and `rules` call it after each change."""
        with self._lock:
            self._epoch = self._epoch % LAST_EPOCH + 1
            if self._armed:
                self._write()

    def exchange(self, config: ProbeConfig, rules: Mapping[str, Mapping[Key, int]]) -> None:
        """Take other settings and other rules at once: what the old and the new ones allow is traced without a gap, and what the
        new ones deny is not traced after this. Raises OSError (E2BIG) when a map of rules is full; then nothing has changed."""
        before = {kind: self.rules.items(kind) for kind in KINDS}
        try:
            mask = self.rules.write(rules)
        except OSError:
            self.rules.write(before)
            self.rules.remove(before)
            raise
        with self._lock:
            self.config, self._rules_mask = config, mask
        self.bump()
        self.rules.remove(rules)
        self.bump()  # threads that began in between were held against the old rules, too

    def _rules_changed(self, mask: int) -> None:
        self._rules_mask = mask
        self.bump()

    def _write(self) -> None:
        maps.write_config(
            self.map_fds["CONFIG"],
            socket_fops=self.socket_fops if self._armed else 0,
            deadline_ns=self._deadline_ns,
            filter_epoch=self._epoch,
            rules=self._rules_mask,
            all_processes=int(self.config.all_processes),
            payload_bytes=self.config.payload_bytes,
            head_bytes=self.config.head_bytes,
            events_per_s=self.config.events_per_s,
            bytes_per_s=self.config.bytes_per_s,
            batch_bytes=self.config.batch_bytes,
            unix_sockets=int(self.config.unix_sockets),
            log_level=self.config.log_level,
        )

    def counters(self) -> npt.NDArray[np.uint64]:
        """The kernel's counters: uint64 (64,), indexed by the numbers of counters.def."""
        return maps.sum_counts(self._counts)

    def in_flight(self) -> int:
        """Data calls that were entered and have not returned: a term of the ledger's first equation."""
        more = maps.read_threads(self.map_fds["THREADS_MORE"])
        return maps.threads_in_call(self._threads.rows) + maps.threads_in_call(more)

    def map_fill(self) -> dict[str, tuple[int, int]]:
        """{map: (entries, most entries)} of all maps that can be full. Walks them: not for every second."""
        known = int(np.count_nonzero(self._threads.rows["tid"]))
        filled = {name: maps.fill(fd) for name, fd in self.map_fds.items()}
        return {name: fill for name, fill in filled.items() if fill} | {"THREADS": (known, self._threads.n_entries)}

    def recursion_misses(self) -> int:
        """Runs of the probes that the kernel skipped because another one was active on that CPU."""
        return sum(maps.recursion_misses(fd) for fd in self.program_fds.values())

    def detach(self) -> None:
        """Take the probes off the kernel, for good; what they recorded and counted stays. Idempotent; any thread."""
        with self._lock:
            links, self.keep_fds = self.keep_fds, []
            programs, self.program_fds = list(self.program_fds.values()), {}
        close_together(links)
        for fd in programs:
            os.close(fd)

    def close(self) -> None:
        """Detach and free everything. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._counts.close()
        self._threads.close()
        # Attachments first, rings last: no probe may run against rings that are gone and count them as full.
        self.detach()
        for fd in [*self.map_fds.values(), *self.ring_fds.values()]:
            os.close(fd)
