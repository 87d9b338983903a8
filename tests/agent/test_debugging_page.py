"""Every command of docs/debugging.md does what the page says, against a running agent."""

import os
import pathlib
import re
import subprocess
import sys

import pytest
from real import DEEPTRACE
from test_presence import talker

pytestmark = pytest.mark.kernel

PAGE = pathlib.Path(__file__).parents[2] / "docs/debugging.md"
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """(folder, environment) for the commands: an agent runs, and something talks."""
    folder = tmp_path_factory.mktemp("debugging")
    with talker() as traced, (folder / "stderr").open("wb") as sink:
        command = [*DEEPTRACE, "agent", "--server", "127.0.0.1:1", "--pid", str(traced), "--json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=sink) as agent:
            assert agent.stdout is not None
            assert agent.stdout.readline(), (folder / "stderr").read_text()
            tools = pathlib.Path(sys.executable).parent
            yield folder, {**os.environ, "AGENT": str(agent.pid), "PATH": f"{tools}:{os.environ['PATH']}"}
            agent.terminate()


@pytest.mark.parametrize("block", BLOCKS, ids=[block.splitlines()[0][:40] for block in BLOCKS])
def test_the_commands_of_the_page_work(place, block):
    folder, environment = place
    ran = subprocess.run(
        ["sh", "-e", "-c", block], cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr
