"""What every capturing process does: load the probes, map the rings, give up every privilege, arm, and let go again.

The order is the point: DeepTrace's own processes are denied before a record is made, and nothing that traced processes wrote is
parsed while a capability is held. Parses nothing itself.
"""

import contextlib
import os

from deeptrace import clock
from deeptrace.agent.blocked import follow_blocked
from deeptrace.agent.filters import Filters
from deeptrace.agent.pidfilter import PidFilter
from deeptrace.agent.presence import Presence
from deeptrace.agent.probes import trace
from deeptrace.agent.procs import ProcFiles
from deeptrace.config import Capture
from deeptrace.core.counters import Counters
from deeptrace.core.ring import Rings
from deeptrace.errors import ProbeError
from deeptrace.loader.capabilities import drop_capabilities
from deeptrace.loader.client import Probes


class Capturing:
    """attach(), then give_up_privileges(), arm(), release(). Owns the probes, the rings and the pipe that wakes the loop."""

    def __init__(self, capture: Capture, *, server: str = "") -> None:
        """server: where this process ships to, "host:port"; such connections are never traced."""
        self._capture = capture
        self._server = server
        self._filters: Filters | None = None
        self._core_counters = Counters()
        self._stopping = False
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._probes: Probes | None = None
        self._presence: Presence | None = None
        self._rings: Rings | None = None

    def attach(self, files: ProcFiles) -> tuple[Probes, Rings, PidFilter]:
        """Load the probes unarmed, map the rings, deny DeepTrace's own processes. Raises ProbeError, UsageError."""
        self._filters = Filters(self._capture, files, server=self._server)  # says what is wrong before anything is loaded
        self._probes = probes = trace.load(self._capture)
        ring_bytes = trace.ring_bytes_per_cpu(self._capture.ring_bytes)
        self._rings = rings = Rings(probes.ring_fds, ring_bytes, self._core_counters, batches_fd=probes.batches_fd)
        pid_filter = PidFilter(probes.pids, files)
        pid_filter.deny_own()
        self._filters.install(probes, pid_filter)
        follow_blocked(probes, files, pid_filter.traced or set(files.pids()) - pid_filter.own)
        return probes, rings, pid_filter

    def arm(self) -> None:
        """Let records come."""
        assert self._probes is not None
        assert self._filters is not None
        self._probes.arm(now_ns=clock.monotonic_ns())
        self._presence = Presence(self._probes)
        self._presence.begin()
        self._filters.armed()

    def live(self) -> None:
        """Tell the probes that the loop runs; without it they stop by themselves. At least once a second, from the loop."""
        if self._presence is not None:
            self._presence.tick()

    def wake(self) -> None:
        """End a wait of the loop. Safe in a signal handler, also when everything is released."""
        if self._wake_write >= 0:
            os.write(self._wake_write, b"x")

    def slept(self) -> None:
        """Take back what wake() did, for a loop that goes on."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)

    def release(self) -> None:
        """Detach the probes and free everything. Idempotent."""
        if self._presence is not None:
            self._presence.end()
            self._presence = None
        if self._rings is not None:
            self._rings.close()
            self._rings = None
        if self._probes is not None:
            self._probes.close()
            self._probes = None
        if self._filters is not None:
            self._filters.close()
            self._filters = None
        for descriptor in (self._wake_read, self._wake_write):
            if descriptor >= 0:
                os.close(descriptor)
        self._wake_read = self._wake_write = -1


def give_up_privileges() -> None:
    """Drop every capability for good. Raises ProbeError if any thread of this process keeps one."""
    drop_capabilities()
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/status") as status:
            held = next((int(line.split()[1], 16) for line in status if line.startswith("CapEff:")), 0)
        if held:
            raise ProbeError(f"thread {task} of the agent keeps the capabilities {held:x}; nothing was parsed")
