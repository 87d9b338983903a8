"""One truth for layouts: what gcc says of the C headers is what Cython, numpy and the declarations say."""

import pathlib
import re
import subprocess

import numpy as np
import pytest
from imports import ROOT

from deeptrace.core import wire

HEADERS = {"dt_records.h": ROOT / "bpf/include/dt_records.h", "dt_span.h": ROOT / "ext/include/dt_span.h"}
DTYPES = {
    "dt_record": wire.RECORD_DTYPE,
    "dt_span": wire.SPAN_DTYPE,
    "dt_attribute": wire.ATTRIBUTE_DTYPE,
    "dt_config": wire.CONFIG_DTYPE,
    "dt_limit": wire.LIMIT_DTYPE,
    "dt_process": wire.PROCESS_DTYPE,
    "dt_log": wire.LOG_DTYPE,
    "dt_counts": wire.COUNTS_DTYPE,
    "dt_file_id": wire.FILE_ID_DTYPE,
}
STRUCT = re.compile(r"struct (\w+) \{(.*?)^\};", re.DOTALL | re.MULTILINE)
MEMBER = re.compile(r"^\s*(struct \w+|__\w+)\s+([^;]+);", re.MULTILINE)


def without_comments(text: str) -> str:
    return re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)


def structs() -> dict[str, list[tuple[str, str]]]:
    """Struct name -> [(type, member name)] of both headers."""
    found = {}
    for header in HEADERS.values():
        for name, body in STRUCT.findall(without_comments(header.read_text())):
            members = []
            for kind, names in MEMBER.findall(body):
                members += [(kind, n.strip().split("[")[0]) for n in names.split(",")]
            found[name] = members
    return found


@pytest.fixture(scope="module")
def c_layouts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, tuple[int, int]]]:
    """Struct -> {member: (offset, size)}, with "" for the struct itself, as gcc lays them out."""
    folder = tmp_path_factory.mktemp("layout")
    lines = []
    for name, members in structs().items():
        lines.append(f'printf("{name}  0 %zu\\n", sizeof(struct {name}));')
        lines += [
            f'printf("{name} {m} %zu %zu\\n", offsetof(struct {name}, {m}), sizeof(((struct {name} *)0)->{m}));' for _, m in members
        ]
    source = folder / "layout.c"
    includes = "".join(f'#include "{h}"\n' for h in HEADERS)
    source.write_text(
        f"#include <stddef.h>\n#include <stdio.h>\n{includes}int main(void) {{\n" + "\n".join(lines) + "\nreturn 0;\n}\n"
    )
    program = folder / "layout"
    include = [f"-I{h.parent}" for h in HEADERS.values()]
    subprocess.run(["gcc", "-Wall", "-Werror", "-Wpadded", *include, "-o", str(program), str(source)], check=True)
    layouts: dict[str, dict[str, tuple[int, int]]] = {}
    for line in subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout.splitlines():
        struct, member, offset, size = line.split(" ")[:4] if "  " not in line else (line.split()[0], "", *line.split()[1:])
        layouts.setdefault(struct, {})[member] = (int(offset), int(size))
    return layouts


def test_headers_hold_the_known_structs() -> None:
    assert set(DTYPES) <= set(structs())


@pytest.mark.parametrize("struct", sorted(DTYPES))
def test_numpy_lays_a_struct_out_as_c_does(struct: str, c_layouts: dict[str, dict[str, tuple[int, int]]]) -> None:
    dtype = DTYPES[struct]
    fields = dtype.fields or {}
    layout = dict(c_layouts[struct])
    assert dtype.itemsize == layout.pop("")[1]
    assert {name: (field[1], field[0].itemsize) for name, field in fields.items()} == layout


def test_cython_knows_the_sizes_that_c_has(c_layouts: dict[str, dict[str, tuple[int, int]]]) -> None:
    assert {name: layout[""][1] for name, layout in c_layouts.items() if name in wire.SIZEOFS} == wire.SIZEOFS


def test_sizes_are_multiples_of_eight(c_layouts: dict[str, dict[str, tuple[int, int]]]) -> None:
    assert c_layouts
    assert not {n: s for n, layout in c_layouts.items() if (s := layout[""][1]) % 8}


def test_members_have_types_of_one_size_everywhere_and_nest_once() -> None:
    plain = {f"__{sign}{bits}" for sign in "us" for bits in (8, 16, 32, 64)}
    for struct, members in structs().items():
        for kind, name in members:
            if kind not in plain:
                inner = kind.removeprefix("struct ")
                assert inner in structs(), f"{struct}.{name} is {kind}"
                assert struct not in DTYPES or all(k in plain for k, _ in structs()[inner]), f"{struct}.{name} nests twice"


@pytest.mark.parametrize("header", sorted(HEADERS))
def test_names_of_a_header_carry_its_prefix(header: str) -> None:
    text = without_comments(HEADERS[header].read_text())
    defined = re.findall(r"^\s*#\s*define\s+(\w+)", text, re.MULTILINE) + re.findall(
        r"^(?:struct|enum)\s+(\w+)", text, re.MULTILINE
    )
    assert not [n for n in defined if not n.startswith(("dt_", "DT_"))]


def test_padding_is_written_out_and_names_ending_be_are_the_only_big_endian_ones() -> None:
    for name, dtype in DTYPES.items():
        fields = sorted((offset, field.itemsize) for field, offset, *_ in (dtype.fields or {}).values())
        ends = [offset + size for offset, size in fields]
        assert [offset for offset, _ in fields] == [0, *ends[:-1]], f"{name} has a hole"
        assert ends[-1] == dtype.itemsize


def test_layout_hash_tells_layouts_apart() -> None:
    a = np.dtype([("x", "<u4"), ("y", "<u4")])
    b = np.dtype([("y", "<u4"), ("x", "<u4")])
    assert wire.layout_hash(a) != wire.layout_hash(b)
    assert wire.layout_hash(a) == wire.layout_hash(np.dtype([("x", "<u4"), ("y", "<u4")]))


def test_declarations_of_a_header_are_complete(c_layouts: dict[str, dict[str, tuple[int, int]]]) -> None:
    text = (ROOT / "ext/dt_wire.pxd").read_text()
    for struct in DTYPES:
        block = re.search(rf'ctypedef struct {struct} "[^"]+":\n(.*?)(?:\n\s*\n|\Z)', text, re.DOTALL)
        assert block, struct
        declared = re.findall(r"^\s+\w+ (\w+)(?:\[\d+\])?$", block[1], re.MULTILINE)
        assert set(declared) == set(c_layouts[struct]) - {""}, pathlib.Path("ext/dt_wire.pxd")
