"""Maps RULES_*: which processes and connections the probes follow by name, program, cgroup and port. Decides nothing itself."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

from deeptrace.core.wire import (
    RULE_ALLOW,
    RULE_DENY,
    RULES_ALLOW_PORT,
    RULES_ALLOW_PROCESS,
    RULES_CGROUP,
    RULES_COMM,
    RULES_EXE,
    RULES_PORT,
)
from deeptrace.loader import map_calls
from deeptrace.loader.maps import LONG, WORD

ALLOW, DENY = RULE_ALLOW, RULE_DENY
ENDPOINT = struct.Struct("=16sH6x")  # struct dt_endpoint
COMM_BYTES = 15  # TASK_COMM_LEN without the final zero
KINDS = {"comm": RULES_COMM, "exe": RULES_EXE, "cgroup": RULES_CGROUP, "port": RULES_PORT}
MAPS = {"comm": "RULES_COMM", "exe": "RULES_EXE", "cgroup": "RULES_CGROUP", "port": "RULES_PORT"}

# comm; cgroup id, or port of every address; (inode, device) of a program's file; (address, port)
Key = str | int | tuple[int, int] | tuple[bytes, int]


def mask_of(rules: Mapping[str, Mapping[Key, int]]) -> int:
    """CONFIG.rules for these: DT_RULES_*."""
    mask = 0
    for kind, entries in rules.items():
        mask |= KINDS[kind] if entries else 0
        if ALLOW in entries.values():
            mask |= RULES_ALLOW_PORT if kind == "port" else RULES_ALLOW_PROCESS
    return mask


class RuleMaps:
    """All rules, kept here as well: the maps are written by nobody else. changed: called with `mask` after every change."""

    def __init__(self, map_fds: Mapping[str, int], changed: Callable[[int], None]) -> None:
        self._fds = {kind: map_fds[name] for kind, name in MAPS.items() if name in map_fds}
        self._changed = changed
        self._held: dict[str, dict[Key, int]] = {kind: {} for kind in KINDS}

    @property
    def mask(self) -> int:
        """CONFIG.rules: DT_RULES_*."""
        return mask_of(self._held)

    def items(self, kind: str) -> dict[Key, int]:
        """{key: ALLOW or DENY} of one kind: comm, exe, cgroup, port."""
        return dict(self._held[kind])

    def set(self, kind: str, key: Key, verdict: int) -> None:
        """Raises OSError (E2BIG) when the map of that kind is full; then nothing changed."""
        map_calls.map_update(self._fds[kind], self._pack(kind, key), WORD.pack(verdict))
        self._held[kind][key] = verdict
        self._changed(self.mask)

    def delete(self, kind: str, key: Key) -> bool:
        if key not in self._held[kind]:
            return False
        del self._held[kind][key]
        map_calls.map_delete(self._fds[kind], self._pack(kind, key))
        self._changed(self.mask)
        return True

    def replace(self, kind: str, entries: Mapping[Key, int]) -> None:
        """Make these the rules of one kind. Only differences are written; the probes follow all of them from one moment on, for
        verdicts that they have given. Raises OSError (E2BIG) when the map is full; the rules are then those that were written."""
        held = self._held[kind]
        if held == dict(entries):
            return
        try:
            for key in [key for key in held if key not in entries]:
                map_calls.map_delete(self._fds[kind], self._pack(kind, key))
                del held[key]
            for key, verdict in entries.items():
                if held.get(key) != verdict:
                    map_calls.map_update(self._fds[kind], self._pack(kind, key), WORD.pack(verdict))
                    held[key] = verdict
        finally:
            self._changed(self.mask)

    def write(self, wanted: Mapping[str, Mapping[Key, int]]) -> int:
        """First half of an exchange of all rules: write those of `wanted` beside the old ones. Returns their mask, which does not
        hold yet. Raises OSError (E2BIG); then remove(the old ones) takes back what was written."""
        for kind, entries in wanted.items():
            held = self._held[kind]
            for key, verdict in entries.items():
                if held.get(key) != verdict:
                    map_calls.map_update(self._fds[kind], self._pack(kind, key), WORD.pack(verdict))
                    held[key] = verdict
        return mask_of(wanted)

    def remove(self, wanted: Mapping[str, Mapping[Key, int]]) -> None:
        """Second half: remove what is not in `wanted`. The caller tells the probes."""
        for kind, held in self._held.items():
            for key in [key for key in held if key not in wanted.get(kind, {})]:
                map_calls.map_delete(self._fds[kind], self._pack(kind, key))
                del held[key]

    def _pack(self, kind: str, key: Key) -> bytes:
        """A key as its map has it. Raises ValueError for one that cannot be."""
        if kind == "comm" and isinstance(key, str):
            return key.encode()[:COMM_BYTES].ljust(COMM_BYTES + 1, b"\0")
        if kind == "exe" and isinstance(key, tuple) and isinstance(key[0], int):
            return struct.pack("=QQ", *key)  # struct dt_file_id
        if kind == "cgroup" and isinstance(key, int):
            return LONG.pack(key)
        if kind == "port" and isinstance(key, int):
            return ENDPOINT.pack(b"", key)
        if kind == "port" and isinstance(key, tuple) and isinstance(key[0], bytes):
            return ENDPOINT.pack(*key)
        raise ValueError(f"a rule of kind {kind} cannot be for {key!r}")
