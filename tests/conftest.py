"""Decides whether tests that need the kernel run. Under CI=true nothing may be skipped: a skipped test fails the run."""

import os
import pathlib
from collections.abc import Iterator

import pytest

IN_CI = os.environ.get("CI") == "true"
skipped: list[str] = []


def why_no_kernel() -> str | None:
    """Why probes cannot be loaded here, in a few words; None when they can."""
    if os.geteuid() != 0:
        return "not root"
    if not pathlib.Path("/sys/kernel/btf/vmlinux").exists():
        return "this kernel has no BTF"
    if not pathlib.Path("/usr/lib/python3/dist-packages/bcc/__init__.py").exists():
        return "BCC is not installed (python3-bpfcc)"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = why_no_kernel()
    if reason is None:
        return
    for item in items:
        if item.get_closest_marker("kernel"):
            item.add_marker(pytest.mark.skip(reason=f"needs root and BPF: {reason}"))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        skipped.append(report.nodeid)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    if IN_CI and skipped and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    return (yield)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if IN_CI and skipped:
        terminalreporter.section("skipped although CI=true, so this run fails", red=True)
        for nodeid in skipped:
            terminalreporter.line(nodeid)
