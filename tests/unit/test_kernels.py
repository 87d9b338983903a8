"""What ci/kernels makes of a machine's end: one line, and no failure that passes for a success."""

import io
import json
import pathlib
import sys
import tarfile

import pytest

CI = pathlib.Path(__file__).resolve().parents[2] / "ci"
sys.path.insert(0, str(CI))

from vm import cpio, machine, steps, turns, verdict  # noqa: E402 - after the path is set

KERNEL = machine.Kernel("6.1", "amd64", "linux-image-amd64", "6.1.")
LOADED = {
    "groups": {"socket_io": 22},
    "disabled": {},
    "warnings": [],
    "seconds": 60.0,
    "selftest": {"passed": True, "messages": 288, "skipped": []},
    "programs": {"dt_exit_read": {"verified_insns": 2757}},
}


def left(exit_code: int = 0, last: str = "59 passed in 70 s", *, late: bool = False, **loaded: object) -> machine.Outcome:
    """What a machine left that came to its end."""
    step = {"name": "conformance", "exit": exit_code, "late": late, "seconds": 70.0}
    files = {"conformance.out": last.encode(), "load.json": json.dumps(LOADED | loaded).encode()}
    return machine.Outcome(release="6.1.0-56-amd64", report={"steps": [step]}, files=files, seconds=100.0)


def test_a_run_that_went_well_is_one_line_with_its_counts() -> None:
    row = verdict.judge(KERNEL, left())
    assert row["ok"]
    assert row["conformance"]["counts"] == {"passed": 59}
    for word in ("6.1.0-56-amd64", "socket_io", "2,757", "self-test ok, 288 messages", "59 passed", "100 s"):
        assert word in row["line"]


@pytest.mark.parametrize(
    ("outcome", "sentence"),
    [
        (left(1, "1 failed, 58 passed in 70 s"), "1 failed, 58 passed"),
        (left(-9, "tests ...", late=True), "too late, at: tests ..."),
        (left(disabled={"uring": "this kernel has no tracepoint x"}), "uring off: this kernel has no tracepoint x"),
        (left(warnings=["the system call readv is not traced: y"]), "readv is not traced"),
        (left(selftest={"passed": False, "messages": 1, "skipped": []}), "self-test failed"),
        (left(selftest=None), "no self-test"),
        (left(error="the probes do not compile"), "failed: the probes do not compile"),
        (machine.Outcome(error="it did not end within 9 s; the last it said: x"), "it did not end within 9 s"),
    ],
)
def test_what_is_not_as_it_should_be_fails_with_its_sentence(outcome: machine.Outcome, sentence: str) -> None:
    row = verdict.judge(KERNEL, outcome)
    assert not row["ok"]
    assert sentence in row["line"]


def test_a_group_that_a_kernel_cannot_have_must_be_off() -> None:
    older = machine.Kernel("6.1", "amd64", "linux-image-amd64", "6.1.", without=("uring",))
    assert verdict.judge(older, left(disabled={"uring": "this kernel has no tracepoint x"}))["ok"]
    assert not verdict.judge(older, left())["ok"]


def test_a_complaint_of_the_kernel_fails_a_run_in_which_all_tests_passed(tmp_path: pathlib.Path) -> None:
    console, line = tmp_path / "console", tmp_path / "line"
    console.write_text("kernels: 6.1.0-56-rt-amd64 is up after 9 s\n[   70.1] BUG: sleeping function called from invalid context\n")
    outcome = left()
    with tarfile.open(line, "w:gz") as archive:
        for name, data in {**outcome.files, "report.json": json.dumps(outcome.report).encode()}.items():
            member = tarfile.TarInfo(f"results/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    collected = machine.Outcome()
    machine.collect(collected, line, console)
    assert (collected.error, collected.release) == ("", "6.1.0-56-rt-amd64")
    row = verdict.judge(KERNEL, collected)
    assert not row["ok"]
    assert "the kernel complained: BUG: sleeping function called from invalid context" in row["line"]


def test_a_panic_is_told_in_the_kernels_words(tmp_path: pathlib.Path) -> None:
    (tmp_path / "console").write_text("kernels: 6.1 is up after 9 s\n[   12.3] Kernel panic - not syncing: sysrq triggered crash\n")
    outcome = machine.Outcome()
    machine.collect(outcome, tmp_path / "line", tmp_path / "console")
    assert "Kernel panic - not syncing: sysrq triggered crash" in outcome.error


def test_every_kernel_of_the_table_can_be_emulated() -> None:
    for kernel in machine.kernels().values():
        assert kernel.architecture in machine.EMULATORS
        assert kernel.version.endswith("."), "else 6.1 would be 6.12 as well"


def test_the_suites_that_are_run_exist() -> None:
    (step,) = steps.plan_steps(load_only=False, command=None)
    files = [part for part in step["command"] if part.endswith(".py")]
    assert files
    assert all((CI.parent / file).is_file() for file in files)


def test_an_archive_holds_folders_before_what_is_in_them_and_is_aligned() -> None:
    out = io.BytesIO()
    archive = cpio.Archive(out)
    archive.file("a/b/c", b"12345", executable=True)
    archive.link("a/d", "b/c")
    archive.end()
    data, at, names = out.getvalue(), 0, []
    while data[at : at + 6] == b"070701":
        size, length = int(data[at + 54 : at + 62], 16), int(data[at + 94 : at + 102], 16)
        names.append(data[at + 110 : at + 110 + length - 1].decode())
        at += -(-(110 + length) // 4) * 4 + -(-size // 4) * 4
    assert names == ["a", "a/b", "a/b/c", "a/d", "TRAILER!!!"]
    assert len(data) % 512 == 0


def test_what_a_killed_run_left_goes_with_the_next(tmp_path: pathlib.Path) -> None:
    (tmp_path / "run-4194305-x").mkdir()  # above the largest pid
    with turns.own_turn(tmp_path, "6.1"), turns.scratch_folder(tmp_path) as scratch:
        assert scratch.is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["locks"]
