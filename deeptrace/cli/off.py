"""`deeptrace off`: take every probe of DeepTrace off this host, now."""

import json as jsonlib
import os
from typing import Annotated, Any

import typer

from deeptrace.cli._options import JsonOption
from deeptrace.errors import ProbeError

ANSWER_TIMEOUT_S = 3.0  # detaching takes 0.2 s, more on a busy host; its probes do nothing meanwhile
TERM_TIMEOUT_S = 0.3  # for one that is still starting, or listens in another network namespace
DETACH_TIMEOUT_S = 5.0  # of a killed process: the kernel closes its descriptors one after the other
EXIT_LEFT = 1  # some probes are still attached


def command(
    pid: Annotated[
        list[int] | None, typer.Option("--pid", metavar="PID", help="Only these agents; none: all of this host.")
    ] = None,
    json: JsonOption = False,
) -> int:
    """Stop tracing on this host: every running agent and recorder takes its probes off at once.

    From then on traced programs run as if DeepTrace were not there. An agent then ships what it has and ends; one that does not
    answer is disarmed from outside and killed, and what it held is lost. Exit code 1 when probes are still attached.

    Example:
      deeptrace off
    """
    from deeptrace.agent import local

    if os.geteuid() != 0:
        raise ProbeError("taking probes off needs root; run it with sudo")
    agents = [agent for agent in local.find_agents() if not pid or agent.pid in pid]
    done = [switch_off(agent) for agent in agents]
    if json:
        print(jsonlib.dumps({"agents": done}))
    else:
        for each in done:
            print(sentence(each))
        if not done:
            print("No agent of DeepTrace runs on this host; nothing is attached.")
    return 0 if all(each["detached"] for each in done) else EXIT_LEFT


def switch_off(agent: Any) -> dict[str, Any]:
    """Detach one agent's probes. {"pid", "how": "asked" | "ended" | "killed", "probes", "detached", "seconds"}."""
    from deeptrace import clock
    from deeptrace.agent import local

    began_ns = clock.monotonic_ns()
    answer = None if local.is_stopped(agent.pid) else local.ask(agent.pid, "off", ANSWER_TIMEOUT_S)
    if answer is not None and "detached" in answer:
        how, probes = "asked", int(answer["detached"])
    else:
        local.disarm(agent)  # whatever it does from here on, its probes do nothing
        how, probes = "ended", len(agent.programs)
        if not (local.end(agent.pid) and local.wait_detached(agent.programs, TERM_TIMEOUT_S)):
            how = "killed"
            local.kill(agent.pid)
    detached = local.wait_detached(agent.programs, DETACH_TIMEOUT_S)
    seconds = round((clock.monotonic_ns() - began_ns) / 1e9, 2)
    return {"pid": agent.pid, "how": how, "probes": probes, "detached": detached, "seconds": seconds}


def sentence(done: dict[str, Any]) -> str:
    """What was done, for people."""
    what = {
        "asked": "was asked; it ships what it has and ends",
        "ended": "did not answer; its probes were disarmed and it was told to end",
        "killed": "did not answer; its probes were disarmed and it was killed, with the spans that it held",
    }[done["how"]]
    state = "detached" if done["detached"] else "NOT all detached"
    return f"agent {done['pid']} {what}: {done['probes']} probes {state} after {done['seconds']:.2f} s"
