"""Finds built-ins by listing their package, and those of outsiders by entry point. Keeps no list by hand."""

import importlib
import importlib.metadata
import pkgutil
from functools import cache
from itertools import pairwise

import deeptrace.protocols
from deeptrace.core.proto import L7Protocol
from deeptrace.errors import DeepTraceError

PROTOCOL_GROUP = "deeptrace.protocols"  # entry points of this group name an L7Protocol


@cache
def load_protocols() -> tuple[L7Protocol, ...]:
    """All L7 protocols, ascending by id: each module of deeptrace.protocols exports PROTOCOL.

    Raises DeepTraceError when two have the same id or name, or an entry point is not a protocol.
    """
    found: dict[str, L7Protocol] = {}
    for module in pkgutil.iter_modules(deeptrace.protocols.__path__):
        found[module.name] = importlib.import_module(f"deeptrace.protocols.{module.name}").PROTOCOL
    for entry in importlib.metadata.entry_points(group=PROTOCOL_GROUP):
        found[entry.value] = entry.load()
    for origin, protocol in found.items():
        if not isinstance(protocol, L7Protocol):
            raise DeepTraceError(f"'{origin}' in entry point group {PROTOCOL_GROUP} is no L7Protocol; remove that package")
    protocols = sorted(found.values(), key=lambda p: p.id)
    for a, b in pairwise(protocols):
        if a.id == b.id:
            raise DeepTraceError(f"the protocols '{a.name}' and '{b.name}' both have the number {a.id}; remove one")
    return tuple(protocols)
