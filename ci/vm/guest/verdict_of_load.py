"""Keeps what the first load of the probes came to in /results/load.json: groups, sentences, the self-test, and for each program
the instructions that the verifier walked (its limit is 1,000,000); the loader's whole output in /results/loader.log."""

import ctypes
import json
import os
import pathlib
import traceback
from collections.abc import Callable

from deeptrace.errors import ProbeError
from deeptrace.loader import client, map_calls
from deeptrace.loader.sys_numbers import bpf

RESULTS = pathlib.Path(os.environ.get("RESULTS", "/tmp"))
VERDICT = RESULTS / "load.json"
LOG_BYTES = 3 << 20  # of compiler and verifier output kept
TIMEOUT_S = 300.0  # what takes 5 s elsewhere takes more than a minute in an emulated machine


class ProgramInfo(ctypes.Structure):
    """struct bpf_prog_info up to verified_insns (linux/bpf.h)."""

    _fields_ = (("head", ctypes.c_uint8 * 16), ("jited_len", ctypes.c_uint32), ("xlated_len", ctypes.c_uint32),
                ("middle", ctypes.c_uint8 * 192), ("verified_insns", ctypes.c_uint32), ("pad", ctypes.c_uint32))  # fmt: skip


def program_sizes(fd: int) -> dict[str, int]:
    info = ProgramInfo()
    bpf(map_calls.OBJECT_INFO, map_calls.InfoCall(fd=fd, info_bytes=ctypes.sizeof(info), info=ctypes.addressof(info)))
    return {"verified_insns": info.verified_insns, "xlated_insns": info.xlated_len // 8, "jited_bytes": info.jited_len}


def attached(probes: client.Probes, report: dict) -> dict:
    """What a load that went well came to."""
    said = probes.report
    return {
        "groups": {group: len(hooks) for group, hooks in said.groups.items()},
        "disabled": said.disabled,
        "warnings": said.warnings,
        "compile_s": said.compile_s,
        "seconds": said.seconds,
        "selftest": report.get("selftest"),
        "programs": {name: program_sizes(fd) for name, fd in sorted(probes.program_fds.items())},
    }


def keep(load_probes: Callable[..., client.Probes]) -> Callable[..., client.Probes]:
    """load_probes with more time, and with its first result kept."""
    run, shown, report = client.run_loader, client.tail, {}

    def tail(output: pathlib.Path) -> str:
        if not VERDICT.exists():
            (RESULTS / "loader.log").write_bytes(output.read_bytes()[-LOG_BYTES:])
        return shown(output)

    def run_loader(request: dict, *, folder: pathlib.Path, **others: object) -> tuple[dict, list[int]]:
        said, fds = run(request, folder=folder, **others)
        report.update(said)
        tail(folder / "output")
        return said, fds

    def load(**arguments: object) -> client.Probes:
        arguments.setdefault("timeout_s", TIMEOUT_S)
        if VERDICT.exists():
            return load_probes(**arguments)
        try:
            probes = load_probes(**arguments)
            VERDICT.write_text(json.dumps(attached(probes, report)))
        except ProbeError as e:
            VERDICT.write_text(json.dumps({"error": str(e), "notes": getattr(e, "__notes__", [])}))
            raise
        except Exception as e:
            VERDICT.write_text(json.dumps({"error": f"{type(e).__name__}: {e}", "notes": [traceback.format_exc()]}))
            raise
        return probes

    client.tail, client.run_loader = tail, run_loader
    return load
