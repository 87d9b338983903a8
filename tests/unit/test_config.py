"""Settings come from the command line, the environment, a file and defaults, in that order; what is wrong is named."""

import pathlib

import pytest

from deeptrace import config
from deeptrace.errors import UsageError


def test_defaults_hold_without_anything_given() -> None:
    assert config.load(environ={}) == config.Settings()


def test_the_command_line_beats_the_environment_and_that_the_file(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "deeptrace.toml"
    file.write_text("[capture]\npayload_bytes = 100\nhead_bytes = 200\n\n[server]\nsettle_s = 3\n")
    environ = {"DEEPTRACE_CAPTURE_PAYLOAD_BYTES": "101", "DEEPTRACE_CAPTURE_HEAD_BYTES": "201"}
    settings = config.load(file=str(file), environ=environ, overrides={"capture.payload_bytes": 102})
    assert settings.capture.payload_bytes == 102
    assert settings.capture.head_bytes == 201
    assert settings.server.settle_s == 3


def test_lists_and_maps_are_read_from_text() -> None:
    environ = {"DEEPTRACE_CAPTURE_PID": "1,22", "DEEPTRACE_AGENT_SERVICE": "python3=shop,nginx=front"}
    settings = config.load(environ=environ)
    assert settings.capture.pid == [1, 22]
    assert settings.agent.service == {"python3": "shop", "nginx": "front"}


@pytest.mark.parametrize(
    ("toml", "word"),
    [
        ("[capture]\npayload_bytes = 99999\n", "payload_bytes"),
        ("[capture]\nno_such_key = 1\n", "no_such_key"),
        ("[nothing]\n", "nothing"),
        ("[ship]\nbatch_spans = 'many'\n", "batch_spans"),
        ("[server]\nsettle_s = 0\n", "settle_s"),
        ("not toml", "deeptrace.toml"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: pathlib.Path, toml: str, word: str) -> None:
    file = tmp_path / "deeptrace.toml"
    file.write_text(toml)
    with pytest.raises(UsageError, match=word):
        config.load(file=str(file), environ={})


def test_a_missing_file_is_named() -> None:
    with pytest.raises(UsageError, match=r"/nowhere/deeptrace\.toml"):
        config.load(file="/nowhere/deeptrace.toml", environ={})


def test_an_environment_variable_that_does_not_parse_is_named() -> None:
    with pytest.raises(UsageError, match="DEEPTRACE_AGENT_DRAIN_MS"):
        config.load(environ={"DEEPTRACE_AGENT_DRAIN_MS": "soon"})


def test_lists_of_texts_reach_a_child_as_they_are() -> None:
    for paths in (["/a"], ["/a", "/b"], ["/with,comma", "/b"], ["[ab]*"]):
        settings = config.load(environ={}, overrides={"capture.exe": paths, "capture.port": [80, 443]})
        given = dict(text.split("=", 1) for text in config.assignments(settings))
        read = {key: config.from_text(config.field_named(key), text, origin="") for key, text in given.items()}
        assert read == {"capture.exe": paths, "capture.port": [80, 443]}


def test_what_differs_between_two_states_of_the_settings_is_named() -> None:
    before, after = config.Settings(), config.load(environ={}, overrides={"capture.comm": ["a"], "ship.batch_ms": 1.0})
    assert config.changed(before, after) == ["capture.comm", "ship.batch_ms"]
    assert config.changed(after, after) == []


def test_names_of_options_and_variables_come_from_the_field() -> None:
    field = next(f for f in config.fields() if f.key == "capture.payload_bytes")
    assert (field.option, field.env, field.unit, field.default) == (
        "--payload-bytes",
        "DEEPTRACE_CAPTURE_PAYLOAD_BYTES",
        "bytes",
        1024,
    )


def test_variables_are_unique() -> None:
    assert len({f.env for f in config.fields()}) == len(config.fields())
