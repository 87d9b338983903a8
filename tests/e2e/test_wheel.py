"""The tool runs from an installed wheel, in another folder, without the checkout."""

import json
import os
import pathlib
import subprocess
import sys
import zipfile

import pytest
from running import Started, http_get, wait_for

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with the unpacked wheel, and nothing else of ours."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-build-isolation",
        "--no-deps",
        "--wheel-dir",
        str(folder),
        str(ROOT),
    ]
    subprocess.run(command, check=True, timeout=300, env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as z:
        z.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_holds_the_probes_and_the_compiled_core(installed: pathlib.Path) -> None:
    package = installed / "deeptrace"
    assert (package / "_data/bpf/include/dt_records.h").is_file()
    assert (package / "_data/benchmarks/README.md").is_file()
    assert list(package.glob("core/wire.*.so"))
    assert {p.name.split(".")[0] for p in package.glob("protocols/*.so")} >= {"http1", "redis"}
    assert not (installed / "tests").exists()


def test_an_installed_wheel_traces(installed: pathlib.Path, started: Started) -> None:
    started.stack.enter_context(pytest.MonkeyPatch.context()).setenv("PYTHONPATH", str(installed))
    # -P: not the working folder; -S would hide the libraries, so the checkout's own entry is taken out by hand.
    start = f"import sys; sys.path[:] = [p for p in sys.path if p != {str(ROOT)!r}]; import deeptrace.cli as c; "
    start += f"assert c.__file__.startswith({str(installed)!r}), c.__file__; c.main()"
    command = [sys.executable, "-P", "-c", start]
    ran = subprocess.run(
        [*command, "doctor", "--json"], capture_output=True, text=True, timeout=60, cwd=started.folder, check=False
    )
    assert json.loads(ran.stdout.splitlines()[-1]), ran.stderr
    traced, port = started.server()
    places = ["--data", str(started.folder / "data"), "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0"]
    up = started.tool("up", "--pid", str(traced.pid), *places, command=command)
    http_get(port, "/ok/installed")
    wait_for("the span", lambda: any(s["attributes"].get("url.path") == "/ok/installed" for s in up.spans()))
    assert up.stop() == 0
