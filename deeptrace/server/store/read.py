"""Rows of the table `spans` back to SpanBatch, as far as correlation needs them: numbers, processes and ids that travel."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from deeptrace.core.wire import ATTRIBUTE_DTYPE, SPAN_DTYPE
from deeptrace.model import ATTRIBUTE_NAMES, ATTRIBUTE_TYPES, NUMBER_FIELDS, ProcessInfo, SpanBatch
from deeptrace.server.store.store import Store

_IDS = {name: key for key, name in ATTRIBUTE_NAMES.items() if ATTRIBUTE_TYPES[name] == "ID"}


def count_after(store: Store, group_id: int) -> int:
    """Spans of groups above group_id."""
    sql = "SELECT count() AS n FROM {db}.spans WHERE group_id > {group:UInt64}"
    return int(store.rows(sql, {"group": group_id})[0]["n"])


def batches_after(store: Store, group_id: int, limit: int) -> Iterator[tuple[int, SpanBatch]]:
    """(group, batch) of the newest `limit` spans of groups above group_id, one batch per group and host."""
    names = ", ".join(f"'{name}'" for name in _IDS)
    sql = f"""SELECT group_id, host, boot_id, {", ".join(NUMBER_FIELDS)}, local_addr, peer_addr, process_start_ns,
                     mapFilter((k, v) -> k IN ({names}), attributes) AS ids
              FROM {{db}}.spans WHERE group_id > {{group:UInt64}} ORDER BY group_id DESC, span_id LIMIT {{limit:UInt32}}"""
    table = store.arrow(sql, {"group": group_id, "limit": limit}).combine_chunks()
    if table.num_rows == 0:
        return
    columns = {name: table[name].to_numpy() for name in ("group_id", *NUMBER_FIELDS)}
    hosts, boots, ids = (table[name].to_pylist() for name in ("host", "boot_id", "ids"))
    spans = np.zeros(table.num_rows, SPAN_DTYPE)
    for name in NUMBER_FIELDS:
        spans[name] = columns[name]
    for name in ("local_addr", "peer_addr"):
        spans[name] = np.frombuffer(b"".join(table[name].to_pylist()), np.uint8).reshape(-1, 16)
    parts: dict[tuple[int, str, str], list[int]] = {}
    for row, key in enumerate(zip(columns["group_id"].tolist(), hosts, boots, strict=True)):
        parts.setdefault(key, []).append(row)
    for (group, host, boot_id), rows in sorted(parts.items()):
        yield group, _batch(spans[rows], [ids[row] for row in rows], host, boot_id)


def _batch(spans: npt.NDArray[np.void], ids: list[list[tuple[str, str]]], host: str, boot_id: str) -> SpanBatch:
    pids, spans["process"] = np.unique(spans["pid"], return_inverse=True)
    strings = {"": 0}
    attributes: list[tuple[int, int, int]] = []
    for i, pairs in enumerate(ids):
        spans["attr_first"][i], spans["attr_count"][i] = len(attributes), len(pairs)
        attributes += [(_IDS[name], strings.setdefault(text, len(strings)), 0) for name, text in pairs]
    encoded = [text.encode() for text in strings]
    string_at = np.zeros(len(encoded) + 1, np.uint32)
    np.cumsum([len(text) for text in encoded], out=string_at[1:])
    return SpanBatch(
        spans,
        np.array(attributes, ATTRIBUTE_DTYPE),
        string_at,
        np.frombuffer(b"".join(encoded), np.uint8),
        [ProcessInfo(pid=int(pid)) for pid in pids],
        host,
        boot_id,
    )
