"""The command line's promises: one sentence per failure, exit codes, options made of settings."""

import pathlib
import sys

import pytest

from deeptrace import cli, config
from deeptrace.cli import _options
from deeptrace.errors import ProbeError, UsageError

VERB = '''
from typing import Annotated
import typer
from deeptrace.cli._options import JsonOption, settings_options
from deeptrace.config import Settings
from deeptrace.errors import ProbeError

@settings_options("capture.pid", "capture.payload_bytes", "agent.service", "server.data")
def command(settings: Settings, json: JsonOption = False, fail: str = "") -> int:
    """Do something.

    Example:
      deeptrace sample --pid 1
    """
    if fail == "known":
        raise ProbeError("it did not work; do this")
    if fail == "defect":
        raise ZeroDivisionError("secret detail")
    if fail == "interrupt":
        raise KeyboardInterrupt
    print(settings.capture.pid, settings.capture.payload_bytes, settings.agent.service, settings.server.data, json)
    return 3 if fail == "code" else 0
'''


@pytest.fixture(autouse=True)
def sample(tmp_path, monkeypatch):
    """The verb `sample` in a folder of its own."""
    (tmp_path / "sample.py").write_text(VERB)
    (tmp_path / "_hidden.py").write_text("raise AssertionError")
    (tmp_path / "broken.py").write_text(
        'raise AssertionError("only the verb that is asked for is imported")\n\ndef command(): "Break."'
    )
    monkeypatch.setattr(cli, "FOLDER", tmp_path)
    monkeypatch.setattr(cli, "__path__", [str(tmp_path)], raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    yield
    sys.modules.pop("deeptrace.cli.sample", None)


def test_help_lists_all_verbs_and_imports_none(capsys):
    assert cli.run(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "sample" in shown
    assert "Do something." in shown
    assert "broken" in shown
    assert "hidden" not in shown


def test_help_of_a_verb_keeps_its_example_and_tells_units_and_defaults(capsys):
    assert cli.run(["sample", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "  Example:\n    deeptrace sample --pid 1\n" in shown
    assert "1024" in shown
    assert "bytes" in shown


def test_options_become_settings_and_the_rest_keeps_its_defaults(capsys):
    assert (
        cli.run(["sample", "--pid", "1", "--pid", "2", "--service", "a.py=shop", "--set", "capture.payload_bytes=64", "--json"])
        == 0
    )
    assert capsys.readouterr().out == f"[1, 2] 64 {{'a.py': 'shop'}} {config.Settings().server.data} True\n"


def test_the_command_line_comes_before_the_environment_and_the_file(tmp_path, capsys, monkeypatch):
    (tmp_path / "s.toml").write_text('[capture]\npayload_bytes = 1\npid = [9]\n[server]\ndata = "/file"\n')
    monkeypatch.setenv("DEEPTRACE_CAPTURE_PAYLOAD_BYTES", "2")
    monkeypatch.setenv("DEEPTRACE_SERVER_DATA", "/environment")
    assert cli.run(["sample", "--config", str(tmp_path / "s.toml"), "--payload-bytes", "3"]) == 0
    assert capsys.readouterr().out == "[9] 3 {} /environment False\n"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["sample", "--fail", "known"], 1, "deeptrace: it did not work; do this"),
        (["sample", "--nope"], 2, "deeptrace sample: No such option: --nope"),
        (["sample", "--pid", "x"], 2, "deeptrace sample: Invalid value for '--pid'"),
        (["sample", "--set", "nope=1"], 2, "there is no setting 'nope'"),
        (["sample", "--set", "capture.pid"], 2, "write section.key=value"),
        (["sample", "--set", "capture.payload_bytes=x"], 2, "--set capture.payload_bytes=x does not hold"),
        (["sample", "--payload-bytes", "99999999"], 2, "a setting cannot be used"),
        (["sample", "--config", "/nowhere"], 2, "cannot read settings from /nowhere"),
        (["nope"], 2, "deeptrace: No such command 'nope'"),
    ],
)
def test_a_failure_is_one_sentence_and_an_exit_code(capsys, arguments, code, said):
    assert cli.run(arguments) == code
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.count("\n") == 1


def test_a_defect_is_one_line_that_names_the_file_with_the_traceback(capsys):
    assert cli.run(["sample", "--fail", "defect"]) == cli.EXIT_DEFECT
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "Traceback" in pathlib.Path(shown.split()[-1]).read_text()


def test_ctrl_c_ends_a_short_verb_with_130_and_a_code_passes_through():
    assert cli.run(["sample", "--fail", "interrupt"]) == 130
    assert cli.run(["sample", "--fail", "code"]) == 3


def test_verbosity_may_stand_anywhere():
    assert cli.hoist_verbosity(["up", "-vv", "--json", "--", "-v"]) == ["-vv", "up", "--json", "--", "-v"]
    assert cli.run(["sample", "-v"]) == 0


def test_settings_survive_the_way_to_a_child():
    settings = config.load(
        overrides={"capture.pid": [1, 2], "agent.service": {"a": "b", "c": "d"}, "ship.batch_ms": 7.5, "server.data": "/x y"},
        environ={},
    )
    overrides = _options.parse_assignments(config.assignments(settings))
    assert config.load(overrides=overrides, environ={}) == settings


def test_errors_have_their_exit_codes():
    assert UsageError.exit_code == 2
    assert ProbeError.exit_code == 1
