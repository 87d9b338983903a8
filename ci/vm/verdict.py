"""From what a machine left to one line and one row of JSON."""

import json
import re
from typing import Any

from .machine import Kernel, Outcome

Row = dict[str, Any]
COUNTS = re.compile(r"(\d+) (passed|failed|skipped|errors?)")
SHOWN = 200  # characters of a sentence in the line; build/kernels/NAME has all


def judge(kernel: Kernel, outcome: Outcome) -> Row:
    """{"name", "ok", "line", "release", "seconds", "error", "complaints", and one entry for each verdict}."""
    steps = {step["name"]: step for step in outcome.report.get("steps", [])}
    verdicts = {} if "command" in steps or not steps else {"load": load_verdict(kernel, outcome)}
    verdicts.update({name: suite_verdict(step, outcome) for name, step in steps.items() if name not in verdicts})
    good = bool(steps) and not outcome.error and not outcome.complaints and all(verdict["ok"] for verdict in verdicts.values())
    parts = ["ok    " if good else "FAILED", f"{kernel.name:<10}", f"{outcome.release:<22}"]
    parts += [f"{name} {verdict['said']}" for name, verdict in verdicts.items()]
    parts += [f"FAILED: {outcome.error}"] if outcome.error else []
    parts += [f"the kernel complained: {complaint[:SHOWN]}" for complaint in outcome.complaints[:1]]
    return {
        "name": kernel.name,
        "ok": good,
        "line": "  ".join([*parts, f"{outcome.seconds:.0f} s"]),
        "release": outcome.release,
        "seconds": outcome.seconds,
        "error": outcome.error,
        "complaints": outcome.complaints,
        **verdicts,
    }


def load_verdict(kernel: Kernel, outcome: Outcome) -> Row:
    """Which groups are attached, what the self-test says, and the program that took the verifier longest."""
    try:
        loaded: Row = json.loads(outcome.files["load.json"])
    except (KeyError, ValueError):
        last = [last_line(step, outcome) for step in outcome.report["steps"]]
        return {"ok": False, "said": f"gave no result: {'; '.join(last)}"}
    if "error" in loaded:
        return {**loaded, "ok": False, "said": f"failed: {loaded['error'][:SHOWN]}"}
    programs = loaded["programs"]
    longest = max(programs, key=lambda name: programs[name]["verified_insns"], default="")
    said = [*loaded["groups"]]
    said += [f"{group} off: {why[:SHOWN]}" for group, why in loaded["disabled"].items()]
    said += [warning[:SHOWN] for warning in loaded["warnings"]]
    said += (
        [f"{len(programs)} programs, most verifier steps {programs[longest]['verified_insns']:,} ({longest})"] if longest else []
    )
    ok = set(loaded["disabled"]) == set(kernel.without) and not loaded["warnings"]
    tested = loaded["selftest"] or {"passed": False, "messages": 0, "skipped": ["there was no self-test"]}
    said += [f"self-test {'ok' if tested['passed'] else 'failed'}, {tested['messages']} messages", *tested["skipped"]]
    ok = ok and bool(tested["passed"]) and not tested["skipped"]
    return {**loaded, "ok": ok, "said": f"{'ok' if ok else 'NOT ok'} ({'; '.join(said)}; {loaded['seconds']:.0f} s)"}


def suite_verdict(step: Row, outcome: Outcome) -> Row:
    """The counts of a suite's last line."""
    last = last_line(step, outcome)
    counts = {word: int(number) for number, word in COUNTS.findall(last)}
    if step["late"]:
        return {**step, "ok": False, "said": f"too late, at: {last}", "counts": counts}
    said = ", ".join(f"{number} {word}" for word, number in counts.items()) or ("ok" if step["exit"] == 0 else f"failed: {last}")
    return {**step, "ok": step["exit"] == 0, "said": said, "counts": counts}


def last_line(step: Row, outcome: Outcome) -> str:
    """The end of a step's output."""
    text = outcome.files.get(f"{step['name']}.out", b"").decode(errors="replace").strip()
    return text.splitlines()[-1][:SHOWN] if text else f"exit {step['exit']} without a word"
