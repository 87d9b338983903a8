"""The wire: what goes in comes out, what is hostile is refused, what is newer is skipped."""

import contextlib
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from span_factory import CLIENT, SERVER, Factory, load, string_table

from deeptrace.core.wire import ATTRIBUTE_DTYPE, SPAN_DTYPE
from deeptrace.errors import WireError
from deeptrace.model import ProcessInfo, SpanBatch, empty_batch, raw_spans
from deeptrace.wire import codec
from deeptrace.wire import deeptrace_pb2 as pb

ROOT = pathlib.Path(__file__).resolve().parents[2]


def small() -> SpanBatch:
    factory = Factory()
    factory.add(SERVER, pid=7, attributes={"url.path": "/ü", "http.response.status_code": 500}, error_type="500")
    factory.add(CLIENT, pid=8, name="SET x")
    return factory.batch()


def same(a: SpanBatch, b: SpanBatch) -> bool:
    return (
        np.array_equal(a.spans, b.spans)
        and np.array_equal(a.attributes, b.attributes)
        and np.array_equal(a.string_at, b.string_at)
        and np.array_equal(a.string_bytes, b.string_bytes)
        and (a.processes, a.host, a.boot_id) == (b.processes, b.host, b.boot_id)
    )


def sent(message: pb.Batch) -> pb.Batch:
    return pb.Batch.FromString(message.SerializeToString())


@st.composite
def batches(draw: st.DrawFn) -> SpanBatch:
    seed, n, m = draw(st.integers(0, 2**32)), draw(st.integers(0, 40)), draw(st.integers(0, 60))
    texts = draw(st.lists(st.text(max_size=20), max_size=8))
    rng = np.random.default_rng(seed)
    spans = np.frombuffer(rng.bytes(n * SPAN_DTYPE.itemsize), SPAN_DTYPE).copy()
    attributes = np.frombuffer(rng.bytes(m * ATTRIBUTE_DTYPE.itemsize), ATTRIBUTE_DTYPE).copy()
    strings = ["", *texts]
    for field in ("name", "error_type"):
        spans[field] %= len(strings)
    attributes["text"] %= len(strings)
    spans["process"] %= 2
    spans["attr_count"] = m // n if n else 0
    spans["attr_first"] = np.arange(n) * (m // n if n else 0)
    return SpanBatch(
        spans, attributes, *string_table(strings), [ProcessInfo(pid=1), ProcessInfo(pid=2, start_ns=5, container_id="c")], "h", "b"
    )


@settings(max_examples=60, deadline=None)
@given(batches())
def test_any_batch_comes_back_as_it_was(batch: SpanBatch) -> None:
    decoded = codec.decode(sent(codec.encode(batch, 3).message))
    assert same(decoded.batch, batch)
    assert decoded.columns_skipped == 0


def test_an_empty_batch_comes_back() -> None:
    assert same(codec.decode(sent(codec.encode(empty_batch("h", "b"), 1).message)).batch, empty_batch("h", "b"))


def test_both_sides_count_the_same_bytes() -> None:
    encoded = codec.encode(load(100), 1)
    decoded = codec.decode(sent(encoded.message))
    assert (decoded.raw_bytes, decoded.wire_bytes) == (encoded.raw_bytes, encoded.wire_bytes)
    assert encoded.wire_bytes < encoded.raw_bytes / 4


def test_text_and_numbers_survive() -> None:
    span = next(raw_spans(codec.decode(sent(codec.encode(small(), 1).message)).batch))
    assert span.attributes == {"url.path": "/ü", "http.response.status_code": 500}
    assert (span.error_type, span.service, span.process_start_ns) == ("500", "service-7", 1_799_999_999_000_000_000)


def test_an_unknown_column_is_skipped_and_counted() -> None:
    message = codec.encode(small(), 1).message
    message.spans.columns.add(name="from_the_future", type="<u8", count=2, data=b"whatever")
    decoded = codec.decode(message)
    assert decoded.columns_skipped == 1
    assert same(decoded.batch, small())


def test_a_missing_column_is_zero() -> None:
    message = codec.encode(small(), 1).message
    kept = [c for c in message.spans.columns if c.name != "weight"]
    del message.spans.columns[:]
    message.spans.columns.extend(kept)
    assert codec.decode(message).batch.spans["weight"].tolist() == [0, 0]


def column(message: pb.Batch, name: str) -> pb.Column:
    return next(c for c in message.spans.columns if c.name == name)


def test_a_known_column_of_another_type_is_refused() -> None:
    message = codec.encode(small(), 1).message
    column(message, "weight").type = "<u8"
    with pytest.raises(WireError, match="weight"):
        codec.decode(message)


def test_a_frame_that_unfolds_to_more_than_it_should_is_refused() -> None:
    message = codec.encode(small(), 1).message
    column(message, "start_ns").data = zstandard.compress(bytes(100_000_000))
    with pytest.raises(WireError, match="start_ns"):
        codec.decode(message)


@pytest.mark.parametrize("rows", [2**20 + 1, 2**63])
def test_a_batch_that_says_it_is_huge_is_refused_before_memory_is_taken(rows: int) -> None:
    with pytest.raises(WireError, match="limit"):
        codec.decode(pb.Batch(spans=pb.Table(rows=rows)))
    with pytest.raises(WireError):
        codec.decode(pb.Batch(string_bytes=pb.Table(rows=2**63)))


@pytest.mark.parametrize("field", ["process", "name", "error_type", "attr_first", "attr_count"])
def test_a_reference_outside_its_table_is_refused(field: str) -> None:
    batch = small()
    batch.spans[field] = 60000
    with pytest.raises(WireError, match="not there"):
        codec.decode(codec.encode(batch, 1).message)


def test_spans_that_share_attribute_rows_are_refused() -> None:
    batch = small()
    batch.spans["attr_first"], batch.spans["attr_count"] = 0, 2
    with pytest.raises(WireError, match="not there"):
        codec.decode(codec.encode(batch, 1).message)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_messages_end_in_wire_error_or_a_batch(data: st.DataObject) -> None:
    raw = bytearray(codec.encode(small(), 1).message.SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        message = pb.Batch.FromString(bytes(raw))
    except Exception:  # noqa: BLE001 - protobuf's own error: gRPC refuses the message before we see it
        return
    with contextlib.suppress(WireError):
        list(raw_spans(codec.decode(message).batch))


def test_versions_two_behind_to_one_ahead_are_spoken_with() -> None:
    assert codec.refusal(codec.version()) == ""
    assert codec.refusal(pb.Version(major=1, minor=codec.PROTOCOL_MINOR + 1)) == ""
    assert "protocol 1.9" in codec.refusal(pb.Version(major=1, minor=9))
    assert "protocol 2.0" in codec.refusal(pb.Version(major=2, minor=0))


def test_the_generated_code_is_that_of_the_proto(tmp_path: pathlib.Path) -> None:
    subprocess.run([sys.executable, str(ROOT / "ci" / "protos"), str(tmp_path)], check=True, timeout=60)
    for name in ("deeptrace_pb2.py", "deeptrace_pb2.pyi"):
        assert (tmp_path / "deeptrace" / "wire" / name).read_text() == (ROOT / "deeptrace" / "wire" / name).read_text(), name
