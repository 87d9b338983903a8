"""The manual says what the code does: every setting, verb, counter, attribute and span field is in it, and nothing else."""

import re
import subprocess
import sys

import numpy as np
import pytest
from imports import ROOT

from deeptrace import cli, config, counters, model
from deeptrace.core.wire import ATTRIBUTE_DTYPE, SPAN_DTYPE
from deeptrace.server.correlate import METHODS

DOCS = ROOT / "docs"
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def one_span() -> model.RawSpan:
    spans = np.zeros(1, SPAN_DTYPE)
    batch = model.SpanBatch(
        spans,
        np.zeros(0, ATTRIBUTE_DTYPE),
        np.zeros(2, np.uint32),
        np.zeros(0, np.uint8),
        [model.ProcessInfo(pid=1)],
        "host",
        "boot",
    )
    return next(model.raw_spans(batch))


def test_the_page_on_spans_lists_the_fields_of_a_span_in_their_order() -> None:
    listed = re.findall(r"^\| `(\w+)` \|", (DOCS / "spans.md").read_text().split("<!-- generated")[0], re.MULTILINE)
    assert listed == list(model.span_json(one_span()))


def test_every_link_method_and_flag_is_documented() -> None:
    words = set(re.findall(r"[\w-]+", (DOCS / "spans.md").read_text()))
    assert not set(METHODS[1:]) - words
    assert not set(model.SPAN_FLAGS) - words


def test_every_setting_has_a_unit_where_its_name_has_one_and_is_documented() -> None:
    text = (DOCS / "settings.md").read_text()
    for field in config.fields():
        assert field.help.endswith("."), field.key
        assert f"`{field.key}`" in text
        assert f"`{field.env}`" in text
        units = {"events_per_s": "/s", "bytes_per_s": "bytes/s", "ms": "ms", "s": "s", "bytes": "bytes"}  # the longest first
        unit = next((unit for suffix, unit in units.items() if f"_{field.name}".endswith(f"_{suffix}")), field.unit)
        assert field.unit == unit, field.key


def test_every_counter_is_documented() -> None:
    text = (DOCS / "counters.md").read_text()
    assert not [name for name in counters.COUNTERS if f"`{name}`" not in text]


def test_every_verb_is_documented_with_an_example() -> None:
    text = (DOCS / "cli.md").read_text()
    for verb in cli.verbs():
        assert f"## {verb}\n" in text
        section = text.split(f"## {verb}\n", 1)[1].split("\n## ", 1)[0]
        assert "Example" in section, f"the help of '{verb}' has no example"


def test_what_is_generated_is_what_its_source_says() -> None:
    checked = subprocess.run([sys.executable, "ci/generate", "--check"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in sorted(DOCS.glob("*.md")))])
def test_links_of_a_page_lead_somewhere(page: str) -> None:
    path = ROOT / page
    assert not [target for target in LINK.findall(path.read_text()) if not (path.parent / target).exists()]


def test_the_readme_shows_the_two_commands() -> None:
    first_screen = "\n".join((ROOT / "README.md").read_text().splitlines()[:40])
    assert "make demo" in first_screen
    assert "make test" in first_screen
