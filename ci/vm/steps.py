"""What is done in a machine, in order. A step is {"name", "command", "timeout_s"}."""

from typing import Any

PYTHON = ".venv/bin/python"
# Emulated, everything takes 15 to 40 times as long; these only end what hangs.
LOAD_S, SUITE_S, COMMAND_S = 500, 1400, 3600

Step = dict[str, Any]
TESTS = (
    "conformance",
    "data",
    "life",
    "life_descriptors",
    "filters",
    "blocked",
    "maps",
    "uring",
)  # of tests/kernel: they share one load


def plan_steps(*, load_only: bool, command: str | None) -> list[Step]:
    """The load is part of the suite, since it takes a minute or more: verdict_of_load keeps what came of it."""
    if command:
        return [{"name": "command", "command": ["sh", "-c", command], "timeout_s": COMMAND_S}]
    if load_only:
        return [{"name": "load", "command": [PYTHON, "/guest/load.py"], "timeout_s": LOAD_S}]
    pytest = [PYTHON, "-m", "pytest", "-p", "emulated", "-p", "no:cacheprovider", "--color=no", "--tb=short"]
    files = [f"tests/kernel/test_{name}.py" for name in TESTS]
    return [{"name": "conformance", "command": [*pytest, *files], "timeout_s": SUITE_S}]
