"""`deeptrace doctor`: what this machine offers for tracing, and whether the agents of a server lost anything."""

import json as jsonlib
from typing import Any

from deeptrace.cli import _probes
from deeptrace.cli._client import Client, DataOption, ServerOption
from deeptrace.cli._options import JsonOption, settings_options
from deeptrace.config import Settings
from deeptrace.errors import ServerUnreachable

EXIT_MISSING = 1  # something that tracing needs is missing
PROBE_PREFIX = "probe."  # gauges of an agent that tell the tracepoints of each group of probes
STALE_S = 10.0  # an agent that sent no heartbeat for so long is told as silent


@settings_options("capture.python")
def command(settings: Settings, server: ServerOption = "", data: DataOption = "", json: JsonOption = False) -> int:
    """Say what is missing on this machine and what to do, how the probes do, and whether anything was lost.

    The probes are those of the agents that run here, watched for a second; without an agent they are loaded, tested and unloaded.

    With a running server it also shows the ledger of each agent: every event that came in is accounted for where it went.
    Exit code 1 when something is missing that tracing needs.

    Example:
      deeptrace doctor                  this machine, and the server on it if there is one
      deeptrace doctor --data /tmp/try  the server of that folder
    """
    from deeptrace.agent import machine

    found = ask_server(server, data)
    checks = machine.check_machine(settings)
    missing = [check.name for check in checks if check.needed and not check.ok]
    probes = _probes.look(settings, load=not missing)
    report = {"machine": machine.as_dicts(checks), "missing": missing, "probes": probes, **summary(found)}
    if json:
        print(jsonlib.dumps(report))
    else:
        show(report)
    return EXIT_MISSING if missing else 0


def ask_server(server: str, data: str) -> dict[str, Any] | None:
    """What the server knows; None when there is none and none was asked for."""
    try:
        found: dict[str, Any] = Client(server, data).get("doctor")
    except ServerUnreachable:
        if server or data:
            raise
        return None
    return found


def summary(found: dict[str, Any] | None) -> dict[str, Any]:
    """The server's part of the report. balanced, events_lost: over all agents and the server; null without a server."""
    if found is None:
        return {"server": None, "agents": [], "balanced": None, "events_lost": None}
    agents = [agent_summary(agent) for agent in found["agents"]]
    return {
        "server": found["server"],
        "agents": agents,
        "balanced": all(agent["balanced"] for agent in agents) and bool(found["server"].get("balanced", True)),
        "events_lost": sum(agent["events_lost"] for agent in agents),
    }


def agent_summary(agent: dict[str, Any]) -> dict[str, Any]:
    """One agent's report with its losses and probes told apart from the other figures."""
    from deeptrace.counters import COUNTERS

    values: dict[str, int] = agent["values"]
    lost = {name: values[name] for name, counter in COUNTERS.items() if counter.is_loss and values.get(name)}
    probes = {name.removeprefix(PROBE_PREFIX): n for name, n in values.items() if name.startswith(PROBE_PREFIX)}
    kept = ("agent_id", "host", "boot_id", "pid", "tool_version", "connected", "time_ns", "balanced", "events_lost")
    return {
        **{name: agent[name] for name in kept},
        "lost": lost,
        "probes": probes,
        "equations": agent["balances"],
        "counters": {name: n for name, n in values.items() if not name.startswith(PROBE_PREFIX)},
    }


def show(report: dict[str, Any]) -> None:
    """The report for people."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    console.print("[bold]This machine[/bold]")
    for check in report["machine"]:
        mark = "[green]ok     [/green]" if check["ok"] else "[red]missing[/red]" if check["needed"] else "[yellow]weak   [/yellow]"
        console.print(f"  {mark} {check['name']:<16} ", end="")
        console.print(check["found"], markup=False)
        if check["advice"]:
            console.print(f"                           -> {check['advice']}", markup=False)
    for status in report["probes"]:
        _probes.show(console, status)
    console.print()
    if report["server"] is None:
        console.print("No DeepTrace server answers here; 'deeptrace up' starts one with an agent.")
        return
    server = report["server"]
    console.print(f"[bold]Server[/bold] agents at {server['grpc']}, queries at {server['http']}, data in {server['data']}")
    for agent in report["agents"]:
        show_agent(console, agent)
    if not report["agents"]:
        console.print("  No agent has reported yet.")


def show_agent(console: Any, agent: dict[str, Any]) -> None:
    from deeptrace import clock
    from deeptrace.counters import COUNTERS

    quiet_s = (clock.unix_ns() - agent["time_ns"]) / 1e9
    state = "connected" if agent["connected"] and quiet_s < STALE_S else f"gone, last heard {quiet_s:,.0f} s ago"
    console.print(f"\n[bold]Agent[/bold] on {agent['host']} (pid {agent['pid']}, {state})")
    attached = ", ".join(f"{name} ({n})" if n else f"{name} [red]not available[/red]" for name, n in agent["probes"].items())
    console.print(f"  probes    {attached or 'not told yet'}")
    verdict = "[green]balanced[/green]" if agent["balanced"] else "[red]NOT balanced[/red]: please report this"
    console.print(f"  ledger    {verdict}")
    for equation in agent["equations"]:
        sign = "=" if equation["left"] == equation["right"] else "~" if equation["balanced"] else "[red]<>[/red]"
        console.print(f"    {equation['name']:<10} {equation['left']:>14,} {sign} {equation['right']:,}")
    console.print(f"  lost      {agent['events_lost']:,} events" + ("" if agent["lost"] else ": nothing"))
    for name, n in agent["lost"].items():
        console.print(f"    {n:>14,} {name}: {COUNTERS[name].help}")
