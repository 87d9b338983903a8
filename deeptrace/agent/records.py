"""Records as people and scripts read them: enums by name, addresses as text. For showing some, not for moving many."""

from typing import Any

import numpy as np

from deeptrace.core.wire import RECORD_FLAGS, SYSCALL_ROWS
from deeptrace.model import format_address

KINDS = {1: "data", 2: "conn", 3: "proc", 4: "log"}  # enum dt_kind
CONN_EVENTS = {1: "connect", 2: "accept", 3: "peer_closed", 4: "closed"}  # enum dt_conn_event
PROC_EVENTS = {1: "fork", 2: "exec", 3: "exit"}  # enum dt_proc_event
SYSCALLS = {row[0]: row[1] for row in SYSCALL_ROWS}
FLAGS = {bit: name for name, bit in RECORD_FLAGS.items()}
TRANSPORTS = {0: "unix", 6: "tcp", 17: "udp"}
AF_UNIX = 1


def record_dict(record: np.void, clock_offset_ns: int) -> dict[str, Any]:
    """One record by field names; time_ns is Unix time of the exit, all other times are as recorded."""
    kind = int(record["kind"])
    code = int(record["code"])
    names = {1: SYSCALLS, 2: CONN_EVENTS, 3: PROC_EVENTS}.get(kind, {})
    ends = record["tuple"]
    flags = int(record["flags"])
    found: dict[str, Any] = {
        "time_ns": int(record["exit_ns"]) + clock_offset_ns,
        "kind": KINDS.get(kind, str(kind)),
        "event": names.get(code, "packet" if kind == 1 and code == 0 else str(code)),
        "direction": (("ingress", "egress")[int(record["direction"]) & 1]) if kind == 1 else None,
    }
    if kind != 3:
        found["transport"] = TRANSPORTS.get(int(ends["l4_protocol"]), str(int(ends["l4_protocol"])))
        for side in ("local", "peer"):
            address, port = ends[f"{side}_addr"].tobytes(), int(ends[f"{side}_port"])
            found[side] = (
                f"{int.from_bytes(address[:8], 'little'):x}" if int(ends["family"]) == AF_UNIX else _endpoint(address, port)
            )
        found["tcp_state"] = int(ends["tcp_state"])
    for name in record.dtype.names or ():
        if name not in ("tuple", "kind", "code", "direction", "flags"):
            found[name] = int(record[name])
    found["flags"] = [name for bit, name in FLAGS.items() if flags & bit]
    return found


def _endpoint(address: bytes, port: int) -> str:
    text = format_address(address)
    return f"[{text}]:{port}" if ":" in text else f"{text}:{port}"
