"""The record file: what was written is read, damage is found and told, neighbouring versions understand each other."""

import os
import pathlib
import resource
import signal

import numpy as np
import pytest

from deeptrace.core.wire import RECORD_DTYPE
from deeptrace.errors import CaptureError
from deeptrace.model import ProcessInfo
from deeptrace.wire import capture, layout
from deeptrace.wire.capture import CaptureInfo, CaptureReader, CaptureWriter, RecordFrame

INFO = CaptureInfo(host="here", boot_id="b-1", clock_offset_ns=12345, created_ns=99, written_by="deeptrace 0.1.0")


def make_frame(n: int, seed: int = 1, drained_ns: int = 7) -> RecordFrame:
    """Random records whose payloads lie scattered in their arena, as a ring leaves them."""
    rng = np.random.default_rng(seed)
    records = np.frombuffer(bytearray(rng.bytes(n * RECORD_DTYPE.itemsize)), RECORD_DTYPE)
    sizes = rng.integers(0, 300, n)
    records["payload_len"] = sizes
    offsets = (np.cumsum(sizes + 8) - sizes).astype(np.uint32)
    arena = np.frombuffer(bytearray(rng.bytes(int((sizes + 8).sum()))), np.uint8)
    return RecordFrame(drained_ns, records, arena, offsets)


def payloads(frame: RecordFrame) -> list[bytes]:
    sizes = frame.records["payload_len"].tolist()
    return [frame.payload[at : at + n].tobytes() for at, n in zip(frame.offsets.tolist(), sizes, strict=True)]


def same(a: RecordFrame, b: RecordFrame) -> bool:
    return a.drained_ns == b.drained_ns and a.records.tobytes() == b.records.tobytes() and payloads(a) == payloads(b)


def write(path: pathlib.Path, *frames: RecordFrame, close: bool = True) -> pathlib.Path:
    writer = CaptureWriter(path, INFO)
    for frame in frames:
        writer.write(frame)
    writer.close({"ring_full": 3}) if close else writer._file.close()
    return path


def read(path: pathlib.Path) -> tuple[list[RecordFrame], CaptureError | None]:
    found: list[RecordFrame] = []
    try:
        with CaptureReader(path) as reader:
            for frame in reader.frames():
                found.append(frame)
    except CaptureError as e:
        return found, e
    return found, None


def test_what_was_written_is_read_again(tmp_path):
    written = [make_frame(n, seed=n, drained_ns=n) for n in (1, 100, 3)]
    path = write(tmp_path / "a.dtcap", *written)
    with CaptureReader(path) as reader:
        found = list(reader.frames())
        assert reader.info == INFO
        assert reader.is_complete
        assert reader.counters == {"ring_full": 3}
        assert reader.skipped_fields == reader.missing_fields == []
    assert all(same(a, b) for a, b in zip(written, found, strict=True))


def test_processes_are_found_again_by_pid_and_later_rows_replace_earlier_ones(tmp_path):
    with CaptureWriter(tmp_path / "a.dtcap", INFO) as writer:
        writer.write_processes([ProcessInfo(pid=5, comm="old"), ProcessInfo(pid=6, service="six")])
        writer.write_processes([ProcessInfo(pid=5, comm="new", start_ns=1)])
    with CaptureReader(tmp_path / "a.dtcap") as reader:
        assert list(reader.frames()) == []
        assert reader.processes[5] == ProcessInfo(pid=5, comm="new", start_ns=1)
        assert reader.processes[6].service == "six"


def test_names_in_a_file_from_elsewhere_cannot_write_to_a_terminal(tmp_path):
    with CaptureWriter(tmp_path / "a.dtcap", CaptureInfo(host="\x1b]0;owned\x07")) as writer:
        writer.write_processes([ProcessInfo(pid=5, comm="\x1b[2J")])
    with CaptureReader(tmp_path / "a.dtcap") as reader:
        list(reader.frames())
        assert reader.info.host.isprintable()
        assert reader.processes[5].comm.isprintable()


def test_a_large_frame_is_split_and_keeps_its_order(tmp_path, monkeypatch):
    monkeypatch.setattr(capture, "SPLIT_BYTES", 4096)
    whole = make_frame(500)
    found, error = read(write(tmp_path / "a.dtcap", whole))
    assert error is None
    assert len(found) > 10
    assert b"".join(f.records.tobytes() for f in found) == whole.records.tobytes()
    assert [p for f in found for p in payloads(f)] == payloads(whole)


def test_the_file_belongs_to_its_owner_alone_even_if_it_was_there_before(tmp_path):
    path = tmp_path / "a.dtcap"
    path.write_bytes(b"x" * 100000)
    path.chmod(0o644)
    write(path, make_frame(2))
    assert path.stat().st_mode & 0o777 == 0o600
    assert read(path)[1] is None


def test_a_file_cut_anywhere_gives_all_whole_frames_and_names_the_place(tmp_path):
    written = [make_frame(5, seed=s) for s in range(3)]
    data = write(tmp_path / "a.dtcap", *written).read_bytes()
    for size in range(0, len(data), 37):
        cut = tmp_path / "cut.dtcap"
        cut.write_bytes(data[:size])
        found, error = read(cut)
        assert all(same(a, b) for a, b in zip(written, found, strict=False))
        if error is None:  # between two frames: a recorder that was killed
            assert len(found) < 4
        else:
            assert "byte" in str(error) or "is no record file" in str(error)
            assert "\n" not in str(error)


def test_a_file_that_ends_between_frames_is_read_and_known_to_be_incomplete(tmp_path):
    path = write(tmp_path / "a.dtcap", make_frame(5), close=False)
    with CaptureReader(path) as reader:
        assert len(list(reader.frames())) == 1
        assert not reader.is_complete


def test_a_changed_byte_is_never_taken_for_data(tmp_path):
    written = [make_frame(5, seed=s) for s in range(3)]
    data = write(tmp_path / "a.dtcap", *written).read_bytes()
    rng = np.random.default_rng(3)
    for at in rng.integers(0, len(data), 300).tolist():
        changed = bytearray(data)
        changed[at] ^= 1 << int(rng.integers(0, 8))
        (tmp_path / "changed.dtcap").write_bytes(changed)
        found, error = read(tmp_path / "changed.dtcap")
        assert all(same(a, b) for a, b in zip(written, found, strict=False))
        assert error is not None or len(found) == 3


def with_dtype(tmp_path, monkeypatch, dtype: np.dtype, frame: RecordFrame) -> pathlib.Path:
    """The frame as another version would have written it."""
    records = layout.convert_records(frame.records, dtype)[0]
    monkeypatch.setattr(capture, "RECORD_DTYPE", dtype)
    path = write(tmp_path / "other.dtcap", RecordFrame(frame.drained_ns, records, frame.payload, frame.offsets))
    monkeypatch.setattr(capture, "RECORD_DTYPE", RECORD_DTYPE)
    return path


def test_a_layout_with_another_order_more_and_fewer_fields_is_read_by_name(tmp_path, monkeypatch):
    fields = [(name, RECORD_DTYPE[name]) for name in reversed(RECORD_DTYPE.names) if name not in ("netns", "cpu")]
    other = np.dtype([("goroutine", "<u8"), *fields])
    frame = make_frame(9)
    path = with_dtype(tmp_path, monkeypatch, other, frame)
    with CaptureReader(path) as reader:
        found = next(reader.frames())
        assert reader.skipped_fields == ["goroutine"]
        assert sorted(reader.missing_fields) == ["cpu", "netns"]
    assert (found.records["netns"] == 0).all()
    assert found.records["tuple"].tobytes() == frame.records["tuple"].tobytes()
    assert found.records["enter_ns"].tolist() == frame.records["enter_ns"].tolist()
    assert payloads(found) == payloads(frame)


def test_a_field_of_another_type_is_refused_by_name(tmp_path, monkeypatch):
    fields = [(name, "<u8" if name == "netns" else RECORD_DTYPE[name]) for name in RECORD_DTYPE.names]
    dtype = np.dtype(fields)
    monkeypatch.setattr(capture, "RECORD_DTYPE", dtype)
    path = write(tmp_path / "other.dtcap")
    monkeypatch.setattr(capture, "RECORD_DTYPE", RECORD_DTYPE)
    with pytest.raises(CaptureError, match="'netns'"):
        CaptureReader(path)


@pytest.mark.parametrize(("mine", "its", "is_read"), [
    ((1, 2), (1, 0), True), ((1, 2), (1, 3), True), ((1, 3), (1, 0), False), ((1, 2), (1, 4), False), ((2, 0), (1, 9), False),
])  # fmt: skip
def test_versions_from_two_back_to_one_ahead_are_read(tmp_path, monkeypatch, mine, its, is_read):
    monkeypatch.setattr(capture, "VERSION", its)
    path = write(tmp_path / "a.dtcap", make_frame(1))
    monkeypatch.setattr(capture, "VERSION", mine)
    found, error = read(path)
    assert (len(found) == 1 and error is None) if is_read else f"format {its[0]}.{its[1]}" in str(error)


def test_a_frame_of_a_kind_not_known_is_skipped(tmp_path):
    with CaptureWriter(tmp_path / "a.dtcap", INFO) as writer:
        writer._frame(77, 1, 1, b"from the future")
        writer.write(make_frame(2))
    found, error = read(tmp_path / "a.dtcap")
    assert (len(found), error) == (1, None)


@pytest.mark.parametrize("content", [b"", b"DTCAP", b"not a capture at all" * 10])
def test_another_file_is_refused_in_one_sentence(tmp_path, content):
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(CaptureError, match="is no record file of DeepTrace"):
        CaptureReader(path)


def test_a_missing_file_and_a_folder_are_refused_in_one_sentence(tmp_path):
    with pytest.raises(CaptureError, match="No such file"):
        CaptureReader(tmp_path / "none")
    with pytest.raises(CaptureError, match="directory"):
        CaptureReader(tmp_path)
    with pytest.raises(CaptureError, match="No such file"):
        CaptureWriter(tmp_path / "none" / "a.dtcap", INFO)


def test_a_pipe_is_not_written_to(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CaptureError, match="cannot write"):
        CaptureWriter(tmp_path / "pipe", INFO)
    with pytest.raises(CaptureError, match="not a regular file"):
        CaptureWriter("/dev/null", INFO)


def write_many(writer: CaptureWriter) -> None:
    for seed in range(100):
        writer.write(make_frame(20, seed=seed))


def test_a_full_disk_is_told_and_what_was_written_before_is_read(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then write(2) fails with EFBIG, as it does with ENOSPC
    writer = CaptureWriter(tmp_path / "a.dtcap", INFO)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, hard))
        with pytest.raises(CaptureError, match="cannot write"):
            write_many(writer)
        writer.__exit__(CaptureError, None, None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    found, error = read(tmp_path / "a.dtcap")
    assert same(found[0], make_frame(20, seed=0))
    assert error is None or "damaged at byte" in str(error)
