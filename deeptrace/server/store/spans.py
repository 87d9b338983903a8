"""SpanBatch to rows of the table `spans`, as Arrow, without a Python object per span. Inserts nothing."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from deeptrace.model import ATTRIBUTE_NAMES, ATTRIBUTE_TYPES, NUMBER_FIELDS, SpanBatch

_MAX_KEY = max(ATTRIBUTE_NAMES) + 1
_NUMBER_KEYS = np.zeros(_MAX_KEY, bool)
_NUMBER_KEYS[[key for key, name in ATTRIBUTE_NAMES.items() if ATTRIBUTE_TYPES[name] == "NUMBER"]] = True


def span_rows(batch: SpanBatch, group_id: int) -> pa.Table:
    """Rows of one batch, columns as in sql/spans.sql. The references of the batch must be in range (the codec checks that)."""
    spans = batch.spans
    n = len(spans)
    strings = _string_array(batch)
    columns: dict[str, pa.Array] = {name: pa.array(np.ascontiguousarray(spans[name])) for name in NUMBER_FIELDS}
    for name in ("local_addr", "peer_addr"):
        columns[name] = pa.Array.from_buffers(pa.binary(16), n, [None, pa.py_buffer(np.ascontiguousarray(spans[name]))])
    for name in ("name", "error_type"):
        columns[name] = strings.take(pa.array(np.ascontiguousarray(spans[name])))
    process = pa.array(np.ascontiguousarray(spans["process"]))
    for name in ("container_id", "comm", "service"):
        columns[name] = pa.array([getattr(p, name) or "" for p in batch.processes], pa.string()).take(process)
    columns["process_start_ns"] = pa.array([p.start_ns or 0 for p in batch.processes], pa.uint64()).take(process)
    columns["host"] = pa.repeat(batch.host, n)
    columns["boot_id"] = pa.repeat(batch.boot_id, n)
    columns["attributes"] = _attribute_maps(batch, strings)
    columns["group_id"] = pa.repeat(pa.scalar(group_id, pa.uint64()), n)
    return pa.table(columns)


def _string_array(batch: SpanBatch) -> pa.Array:
    """The string table as text. Bytes that are not UTF-8 (no agent of ours sends them) are replaced, batch by batch."""
    array = pa.Array.from_buffers(
        pa.string(),
        len(batch.string_at) - 1,
        [None, pa.py_buffer(batch.string_at.astype(np.int32)), pa.py_buffer(np.ascontiguousarray(batch.string_bytes))],
    )
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        return pa.array(batch.strings(), pa.string())
    return array


def _attribute_maps(batch: SpanBatch, strings: pa.Array) -> pa.Array:
    """One map name -> text per span; numbers as decimal text."""
    counts = batch.spans["attr_count"].astype(np.int64)
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    # row of the attribute table for each map entry, in span order
    rows = np.repeat(batch.spans["attr_first"].astype(np.int64) - offsets[:-1], counts) + np.arange(offsets[-1])
    attributes = batch.attributes[rows]
    keys, key_index = np.unique(attributes["key"], return_inverse=True)
    names = pa.array([ATTRIBUTE_NAMES.get(int(k), f"deeptrace.attribute.{k}") for k in keys], pa.string())
    values = strings.take(pa.array(np.ascontiguousarray(attributes["text"])))
    numeric = _is_number(attributes["key"])
    if numeric.any():
        texts = pa.array(np.ascontiguousarray(attributes["number"])).cast(pa.string())
        values = pc.if_else(pa.array(numeric), texts, values)
    return pa.MapArray.from_arrays(pa.array(offsets.astype(np.int32)), names.take(pa.array(key_index)), values)


def _is_number(keys: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
    known = keys < _MAX_KEY
    result: npt.NDArray[np.bool_] = known & _NUMBER_KEYS[np.where(known, keys, 0)]
    return result
