"""From the filters of the settings to what the kernel knows: files, cgroups, ports; and what is said of those that cannot be."""

import os
import pathlib

import pytest

from deeptrace.agent import cgroups, filters
from deeptrace.agent.cgroups import Cgroups, Hierarchy
from deeptrace.agent.executables import KEPT_FILES, Executable
from deeptrace.agent.filters import Filters, ends_of
from deeptrace.agent.procs import ProcFiles
from deeptrace.config import Capture
from deeptrace.errors import UsageError
from deeptrace.loader.rules import ALLOW, DENY

CONTAINER = "ab12" * 16


@pytest.fixture
def trees(tmp_path):
    """A unified tree with a unit and a container, and one of the first version with a container of its own."""
    for folder in (
        "v2/system.slice/nginx.service",
        f"v2/system.slice/docker-{CONTAINER}.scope/init",
        "v1/docker/" + "cd34" * 16 + "/inner",
        "v1/lxc/box",
    ):
        (tmp_path / folder).mkdir(parents=True)
    for n, folder in enumerate(sorted(p for p in (tmp_path / "v1").rglob("*") if p.is_dir())):
        (folder / "cgroup.procs").write_text(f"{100 + n}\n0\n")
    return Cgroups([Hierarchy(str(tmp_path / "v2"), unified=True), Hierarchy(str(tmp_path / "v1"), unified=False)])


def inode(path):
    return os.stat(path).st_ino


@pytest.mark.parametrize(
    "wanted", ["nginx", "nginx.service", "ngin*", "/system.slice/nginx.service", "{v2}/system.slice/nginx.service/"]
)
def test_a_unit_is_found_by_name_pattern_and_path(trees, tmp_path, wanted):
    found = trees.require(wanted.format(v2=tmp_path / "v2"))
    assert found.ids == {inode(tmp_path / "v2/system.slice/nginx.service")}
    assert found.folders == ()


@pytest.mark.parametrize("wanted", [CONTAINER, CONTAINER[:12], CONTAINER[:40], f"docker-{CONTAINER}", "docker-*"])
def test_a_container_is_found_by_its_id_and_its_short_id(trees, tmp_path, wanted):
    assert trees.require(wanted).ids == {inode(tmp_path / f"v2/system.slice/docker-{CONTAINER}.scope")}


def test_a_container_of_the_first_version_is_found_with_its_processes(trees, tmp_path):
    found = trees.require("cd34" * 3)
    assert (found.ids, found.folders) == (frozenset(), (str(tmp_path / "v1/docker" / ("cd34" * 16)),))
    assert cgroups.members(found.folders) == {101, 102}
    assert cgroups.members(["/no/such/folder"]) == set()


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("nobody", "no container, unit or cgroup 'nobody' runs here"),
        (CONTAINER[:11], "at least 12 digits"),
        ("/no.slice", "there is no cgroup /no.slice"),
    ],
)
def test_an_unknown_container_is_named(trees, wanted, words):
    with pytest.raises(UsageError, match=words):
        trees.require(wanted)


def test_a_pattern_may_stand_for_what_comes_later(trees, tmp_path):
    assert not trees.require("later-*")
    (tmp_path / "v2/later-1.scope").mkdir()
    assert trees.find("later-*").ids == {inode(tmp_path / "v2/later-1.scope")}


def test_a_host_without_cgroups_says_so():
    with pytest.raises(UsageError, match="no cgroup file system is mounted"):
        Cgroups([]).require("nginx")


def test_mounted_trees_are_read_from_the_mount_table(tmp_path):
    table = tmp_path / "mountinfo"
    table.write_text(
        "35 25 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu\n"
        "36 25 0:31 / /sys/fs/cgroup/a\\040b rw shared:9 master:1 - cgroup2 cgroup2 rw\n"
        "37 25 8:1 / / rw - ext4 /dev/sda1 rw\n"
    )
    assert cgroups.mounted_hierarchies(str(table)) == [
        Hierarchy("/sys/fs/cgroup/a b", unified=True),
        Hierarchy("/sys/fs/cgroup/cpu,cpuacct", unified=False),
    ]


def test_a_program_keeps_its_earlier_files_and_holds_them(tmp_path):
    path = tmp_path / "shop"
    path.write_bytes(b"\x7fELF 0")
    program = Executable(str(path))
    assert program.ids()[0][0] == inode(path)
    assert not program.refresh()
    for version in range(1, KEPT_FILES + 2):
        (tmp_path / "next").write_bytes(f"\x7fELF {version}".encode())
        (tmp_path / "next").rename(path)
        assert program.refresh()
        assert len(program.ids()) == len(set(program.ids())) == min(version + 1, KEPT_FILES)
    path.unlink()
    assert not program.refresh()
    assert len(program.ids()) == KEPT_FILES
    program.close()
    program.close()


def test_a_link_is_followed_also_when_it_turns(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"\x7fELF")
    link = tmp_path / "link"
    link.symlink_to("a")
    program = Executable(str(link))
    link.unlink()
    link.symlink_to("b")
    assert program.refresh()
    assert [number for number, _device in program.ids()] == [inode(tmp_path / "a"), inode(tmp_path / "b")]
    program.close()


def test_what_cannot_be_executed_is_named(tmp_path):
    script = tmp_path / "a-long-script-name.sh"
    script.write_text("#!/bin/sh\n")
    for path, words in (
        (tmp_path / "none", "there is no executable"),
        (tmp_path, "is no file that can be executed"),
        (script, "is a script.*--comm a-long-script-n$"),
    ):
        before = os.listdir("/proc/self/fd")
        with pytest.raises(UsageError, match=words):
            Executable(str(path))
        assert os.listdir("/proc/self/fd") == before


def test_the_device_of_a_file_is_the_one_of_its_mount(tmp_path):
    """On btrfs and overlayfs stat(2) shows another one; where both agree nothing is proven but the parsing."""
    path = tmp_path / "shop"
    path.write_bytes(b"\x7fELF")
    program = Executable(str(path))
    _number, device = program.ids()[0]
    numbers = f" {device >> 20}:{device & 0xFFFFF} "
    assert any(numbers in line for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines())
    program.close()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"comm": ["sixteen-bytes-xx"]}, "16 bytes.*first 15: 'sixteen-bytes-x'"),
        ({"deny_comm": [""]}, "0 bytes"),
        ({"port": [0]}, "no port 0"),
        ({"deny_port": [65536]}, "no port 65536"),
        ({"deny_pid": [1 << 22]}, "there is no process"),
        ({"exe": ["/no/such/file"]}, "/no/such/file"),
        ({"cgroup": ["no-such-unit"]}, "no-such-unit"),
    ],
)
def test_a_filter_that_cannot_be_is_named_before_anything_is_loaded(trees, settings, words):
    with pytest.raises(UsageError, match=words):
        Filters(Capture(**settings), ProcFiles(), trees=trees)


def test_what_is_allowed_and_denied_is_denied(trees, tmp_path):
    program = tmp_path / "shop"
    program.write_bytes(b"\x7fELF")
    both = {"comm": ["a"], "exe": [str(program)], "cgroup": ["nginx"], "port": [80]}
    made = Filters(Capture(**both, **{f"deny_{kind}": values for kind, values in both.items()}), ProcFiles(), trees=trees)
    rules = made._plan.rules(frozenset())
    assert {kind: set(entries.values()) for kind, entries in rules.items()} == {kind: {DENY} for kind in rules}
    only = Filters(Capture(**both), ProcFiles(), trees=trees)
    assert {verdict for entries in only._plan.rules(frozenset()).values() for verdict in entries.values()} == {ALLOW}
    for one in (made, only):
        one.close()


def test_more_rules_than_the_maps_hold_are_refused(trees):
    made = Filters(Capture(comm=[f"n{i}" for i in range(filters.MAX_RULES + 1)]), ProcFiles(), trees=trees)
    with pytest.raises(UsageError, match="too many"):
        made._plan.rules(frozenset())


def test_the_servers_address_is_known_as_the_probes_see_it():
    mapped = b"\0" * 10 + b"\xff\xff"
    assert ends_of("127.0.0.1:4417", numeric=True) == {(mapped + bytes([127, 0, 0, 1]), 4417)}
    assert ends_of("[::1]:4417", numeric=True) == {(b"\0" * 15 + b"\1", 4417)}
    for nothing in ("", "localhost:4417", "0.0.0.0:4417", "[::]:4417", "127.0.0.1:0", "no-port"):
        assert ends_of(nothing, numeric=True) == set()
    assert any(port == 4417 for _address, port in ends_of("localhost:4417"))
