"""What records say of processes: forks, execs, exits, who opened a connection. Python per record of a process, not of a call."""

import struct
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from deeptrace.agent.procs import clean
from deeptrace.core.batch import Batch

KIND_CONN = 2  # dt_records.h: enum dt_kind
COMM_BYTES = 16  # dt_records.h: DT_COMM_LEN; older recordings have nothing else
PROCESS = struct.Struct("=16sQQ")  # dt_records.h: struct dt_process


class Known(NamedTuple):
    """What a record tells of a process. started_ns: CLOCK_BOOTTIME; cgroup_id: in the unified hierarchy; 0: not said."""

    comm: str = ""
    started_ns: int = 0
    cgroup_id: int = 0


class ProcessEvent(NamedTuple):
    """code: enum dt_proc_event."""

    code: int
    pid: int
    known: Known


def read_process(payload: bytes) -> Known:
    """The payload of a record of a process or of a connection's beginning; of any length, as recordings may be damaged."""
    if len(payload) >= PROCESS.size:
        comm, started_ns, cgroup_id = PROCESS.unpack_from(payload)
        return Known(_name(comm), started_ns, cgroup_id)
    return Known(_name(payload[:COMM_BYTES]))


def _name(comm: bytes) -> str:
    return clean(comm.split(b"\0", 1)[0])


def process_records(batch: Batch, rows: Any) -> list[ProcessEvent]:
    """The events of these rows, in the order of time."""
    in_order = batch.order[np.isin(batch.order, rows)]
    chosen = batch.records[in_order]
    columns = (chosen["code"], chosen["tgid"], batch.payload_at[in_order], chosen["payload_len"])
    return [
        ProcessEvent(code, pid, read_process(batch.payload[at : at + size].tobytes()))
        for code, pid, at, size in zip(*(column.tolist() for column in columns), strict=True)
    ]


def openers(batch: Batch, pids: Iterable[int]) -> dict[int, Known]:
    """What the records of connections say of those of `pids` that opened or accepted one."""
    records = batch.records
    wanted = (records["kind"] == KIND_CONN) & (records["payload_len"] >= PROCESS.size) & np.isin(records["tgid"], list(pids))
    found = {}
    for row in np.flatnonzero(wanted).tolist():
        at = int(batch.payload_at[row])
        found[int(records["tgid"][row])] = read_process(batch.payload[at : at + PROCESS.size].tobytes())
    return found
