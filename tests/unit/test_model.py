"""The span as JSON, and batches of spans."""

import json

import numpy as np

from deeptrace import model
from deeptrace.core.wire import ATTRIBUTE_DTYPE, SPAN_DTYPE


def batch_of_one(**fields: object) -> model.SpanBatch:
    """A batch with one span, two attributes and a text that is not UTF-8."""
    texts = [b"", b"GET", b"/a\xffb", b"abc-1"]
    names = {name: key for key, name in model.ATTRIBUTE_NAMES.items()}
    attributes = np.zeros(3, ATTRIBUTE_DTYPE)
    attributes["key"] = [names["url.path"], names["http.response.status_code"], names["x-request-id"]]
    attributes["text"] = [2, 0, 3]
    attributes["number"] = [0, 404, 0]
    spans = np.zeros(1, SPAN_DTYPE)
    spans["name"], spans["attr_count"] = 1, 3
    spans["local_addr"] = list(bytes.fromhex("00000000000000000000ffff7f000001"))
    spans["peer_addr"] = list(bytes.fromhex("20010db8000000000000000000000001"))
    for name, value in fields.items():
        spans[name] = value
    at = np.cumsum([0, *(len(t) for t in texts)]).astype(np.uint32)
    data = np.frombuffer(b"".join(texts), np.uint8)
    processes = [model.ProcessInfo(pid=7, comm="python3", service="shop")]
    return model.SpanBatch(spans, attributes, at, data, processes, "host-1", "boot-1")


def as_json(batch: model.SpanBatch, link: model.Link | None = None) -> dict[str, object]:
    span = model.span_json(next(model.raw_spans(batch)), link)
    return dict(json.loads(json.dumps(span)))


def test_ids_are_hex_and_absent_things_are_null() -> None:
    span = as_json(batch_of_one(span_id=0xAB, kind=1, protocol=1, pid=7))
    assert span["span_id"] == "00000000000000ab"
    assert [span[k] for k in ("trace_id", "parent_span_id", "link_method", "response_start_ns", "resp_seq", "error_type")] == [
        None
    ] * 6
    assert (span["protocol"], span["pid"], span["service"], span["host"]) == ("http1", 7, "shop", "host-1")


def test_a_span_of_a_packet_capture_has_no_process() -> None:
    span = as_json(batch_of_one(pid=0))
    assert (span["pid"], span["req_tid"], span["resp_tid"]) == (None, None, None)


def test_addresses_are_text_and_mapped_ones_dotted() -> None:
    span = as_json(batch_of_one())
    assert (span["local_addr"], span["peer_addr"]) == ("127.0.0.1", "2001:db8::1")


def test_attributes_and_ids_are_told_apart_and_typed() -> None:
    span = as_json(batch_of_one())
    assert span["attributes"] == {"url.path": "/a\ufffdb", "http.response.status_code": 404}
    assert span["ids"] == {"x-request-id": "abc-1"}


def test_a_link_gives_trace_parent_method_and_confidence() -> None:
    link = model.Link(trace_id="f" * 32, parent_span_id=1, method="tcp_seq", confidence=1.0)
    span = as_json(batch_of_one(), link)
    assert (span["trace_id"], span["parent_span_id"], span["link_method"], span["link_confidence"]) == (
        "f" * 32,
        "0" * 15 + "1",
        "tcp_seq",
        1.0,
    )


def test_flags_are_named() -> None:
    flags = model.SPAN_FLAGS["cut"] | model.SPAN_FLAGS["incomplete"]
    assert as_json(batch_of_one(flags=flags))["flags"] == ["cut", "incomplete"]


def test_an_empty_batch_has_no_spans_and_the_empty_string() -> None:
    batch = model.empty_batch("h", "b")
    assert len(batch) == 0
    assert batch.strings() == [""]
    assert list(model.raw_spans(batch)) == []
