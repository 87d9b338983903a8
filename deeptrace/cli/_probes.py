"""The part of `doctor` that looks at the probes: of the agents that run here or, where none does, a set loaded for the moment."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from deeptrace.config import Settings

MEASURE_S = 1.0  # runs and times of the probes are counted for so long
ASK_TIMEOUT_S = 3.0


def look(settings: Settings, *, load: bool) -> list[dict[str, Any]]:
    """One status (agent/probe_status.py) per agent of this host, each program with what it ran and took in `measured_s`. Without an
    agent the probes are loaded, tested and unloaded again, if `load`. An agent that cannot be asked has only "pid" and "error"."""
    from deeptrace.agent import local

    agents = [agent.pid for agent in local.find_agents()]
    if agents:
        return measure(agents)
    return [load_once(settings)] if load else []


def measure(agents: list[int]) -> list[dict[str, Any]]:
    """Ask each agent twice while the kernel counts."""
    from deeptrace.agent import local
    from deeptrace.loader.bpf_objects import Statistics

    def ask_all() -> dict[int, dict[str, Any] | None]:
        return {pid: local.ask(pid, "status", ASK_TIMEOUT_S) for pid in agents}

    measured_s = 0.0
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(Statistics())
            measured_s = MEASURE_S
        except OSError:
            pass  # only root may let the kernel count
        before = ask_all()
        time.sleep(measured_s)
        after = ask_all()
    return [joined(pid, before[pid], after[pid], measured_s) for pid in agents]


def joined(pid: int, before: dict[str, Any] | None, after: dict[str, Any] | None, measured_s: float) -> dict[str, Any]:
    """The later status, its programs with what they did in between."""
    if after is None or "programs" not in after:
        reason = "it does not answer; it may hang, be starting, or belong to another user"
        return {"pid": pid, "error": (after or {}).get("error", reason)}
    earlier = {program["id"]: program for program in (before or {}).get("programs", ())}
    for program in after["programs"]:
        base = earlier.get(program["id"], program)
        program["runs_then"], program["run_ns_then"] = program["runs"] - base["runs"], program["run_ns"] - base["run_ns"]
    return {**after, "measured_s": measured_s}


def load_once(settings: Settings) -> dict[str, Any]:
    """Load, test and unload the probes. A failure is told as "error"."""
    from deeptrace.agent.probe_status import probe_status
    from deeptrace.agent.probes import trace
    from deeptrace.errors import DeepTraceError

    try:
        probes = trace.load(settings.capture)
    except DeepTraceError as e:
        return {"pid": None, "error": str(e)}
    try:
        return {"pid": None, "measured_s": 0.0, **probe_status(probes)}
    finally:
        probes.close()


def show(console: Any, status: dict[str, Any]) -> None:
    """One status for people."""
    whose = f"of agent {status['pid']}" if status["pid"] else "loaded for this report, and unloaded again"
    console.print(f"\n[bold]Probes[/bold] {whose}")
    if "error" in status:
        console.print(f"  [red]{status['error']}[/red]")
        return
    debug = ", debug build" if status["debug"] else ""
    console.print(
        f"  loaded    in {status['load_s']:.1f} s{debug}; rings {status['rings']['cpus']} x {status['rings']['bytes'] >> 10} KB"
    )
    for group, n in status["groups"].items():
        console.print(f"  group     {group} [green]attached[/green] to {n} tracepoints")
    for group, reason in status["disabled"].items():
        console.print(f"  group     {group} [red]not available[/red]: ", end="")
        console.print(reason, markup=False)
    for warning in status["warnings"]:
        console.print(f"  note      {warning}", markup=False)
    show_selftest(console, status["selftest"])
    show_maps(console, status["maps"])
    show_programs(console, status)


def show_selftest(console: Any, selftest: dict[str, Any]) -> None:
    if not selftest:
        console.print("  self-test not done")
        return
    failed = selftest["groups"] or selftest["bad_calls"]
    verdict = "[green]passed[/green]" if selftest["passed"] else "[red]failed[/red]" if failed else "[yellow]not done[/yellow]"
    done = f"{selftest['messages']} messages through {len(selftest['calls'])} calls in {selftest['seconds']:.2f} s"
    console.print(f"  self-test {verdict}: {done}")
    for sentence in selftest["skipped"]:
        console.print(f"            {sentence}", markup=False)


def show_maps(console: Any, maps: dict[str, dict[str, Any]]) -> None:
    total = sum(each["bytes"] for each in maps.values())
    console.print(f"  maps      {total / (1 << 20):.1f} MB in all")
    for name, each in maps.items():
        if each["most"]:
            share = each["entries"] / each["most"]
            console.print(
                f"    {name:<14} {each['entries']:>9,} of {each['most']:>9,} {share:>4.0%} {each['bytes'] / 1024:>9,.0f} KB"
            )


def show_programs(console: Any, status: dict[str, Any]) -> None:
    misses = sum(program["misses"] for program in status["programs"])
    console.print(f"  programs  {len(status['programs'])}; {misses:,} runs skipped by recursion")
    seconds = status["measured_s"]
    for program in sorted(status["programs"], key=lambda program: -program.get("run_ns_then", 0)):
        runs = program.get("runs_then", 0)
        if runs:
            each_ns = program["run_ns_then"] / runs
            share = program["run_ns_then"] / (seconds * 1e9)
            console.print(f"    {program['name']:<34} {runs / seconds:>10,.0f}/s {each_ns:>7,.0f} ns {share:>7.2%} of a CPU")
