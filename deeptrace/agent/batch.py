"""Rows of the core to a SpanBatch: adds what is known of each process, learns who serves which port. No loop per span."""

import numpy as np

from deeptrace.agent.procs import ProcessTable
from deeptrace.core.pipeline import SpanRows
from deeptrace.core.wire import SPAN_KINDS
from deeptrace.model import SpanBatch

SERVER = next(number for number, name in SPAN_KINDS.items() if name == "SERVER")
MAX_SERVED = 65536  # (process, port) pairs remembered as told; beyond it they are told again


class BatchMaker:
    """Makes batches of one host. take() moves the core's rows; nothing is copied twice."""

    def __init__(self, processes: ProcessTable, *, host: str, boot_id: str) -> None:
        self._processes = processes
        self._host = host
        self._boot_id = boot_id
        self._served: set[int] = set()

    def make(self, rows: SpanRows, now_ns: int) -> SpanBatch:
        """One batch. rows: as the pipeline's take() gives them; now_ns: monotonic."""
        pids = [int(pid) for pid in rows.pids]
        for pid in pids:
            if pid:
                self._processes.get(pid, now_ns)
        self._learn_ports(rows)
        return SpanBatch(
            spans=rows.spans,
            attributes=rows.attributes,
            string_at=rows.string_at,
            string_bytes=rows.string_bytes,
            processes=[self._processes.get(pid, now_ns) for pid in pids],
            host=self._host,
            boot_id=self._boot_id,
        )

    def forget(self, pid: int) -> None:
        """The pid has a new program or owner: what it served is told again."""
        self._served = {key for key in self._served if key >> 16 != pid}

    def _learn_ports(self, rows: SpanRows) -> None:
        serving = rows.spans[(rows.spans["kind"] == SERVER) & (rows.spans["local_port"] > 0)]  # unix sockets have no ports
        keys = np.unique(serving["pid"].astype(np.uint64) << np.uint64(16) | serving["local_port"].astype(np.uint64))
        new = [key for key in keys.tolist() if key not in self._served]
        if len(self._served) + len(new) > MAX_SERVED:
            self._served.clear()
        for key in new:
            self._served.add(key)
            self._processes.serves(key >> 16, key & 0xFFFF)


def without_processes(rows: SpanRows, pids: set[int]) -> SpanRows:
    """The rows without the spans of these processes; their attributes and strings stay behind unused."""
    keep = ~np.isin(rows.spans["pid"], np.asarray(sorted(pids), dtype=np.uint32))
    return rows._replace(spans=rows.spans[keep])
