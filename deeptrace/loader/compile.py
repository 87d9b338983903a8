"""Compiles the probes and attaches them, through BCC. A group of probes that fails is left out with a sentence; the
others stay. The only file that imports bcc."""

from __future__ import annotations

import contextlib
import os
import pathlib
import platform
import re
from typing import Any

from . import typed
from .btf import TypeNumbers
from .failure import LoadFailure
from .flatten import flatten_groups, probe_files, syscall_names
from .tracefs import has_tracepoint

FUNCTION = re.compile(r"\bint dt_(?P<kind>enter|exit|raw)_(?P<each>##)?(?P<event>\w+)\(")
OLDER_NAMES = {"io_uring_submit_req": "io_uring_submit_sqe"}  # raw tracepoints that had another name (before Linux 6.3)


class Hook:
    """One function of the probes and where it belongs: dt_enter_X and dt_exit_X on system call X, dt_raw_X on raw tracepoint X."""

    def __init__(self, kind: str, event: str) -> None:
        self.function = f"dt_{kind}_{event}"
        self.is_raw = kind == "raw"
        self.event = event if self.is_raw else f"sys_{kind}_{event}"
        self.syscall = "" if self.is_raw else event

    def exists(self, tracefs: pathlib.Path) -> bool:
        """Whether this kernel has the tracepoint; takes its older name if it has that."""
        if not self.is_raw:
            return has_tracepoint(tracefs, "syscalls", self.event)
        if self.event in OLDER_NAMES and not has_tracepoint(tracefs, "*", self.event):
            self.event = OLDER_NAMES[self.event]
        return has_tracepoint(tracefs, "*", self.event)


def group_hooks(bpf: pathlib.Path, group: str) -> list[Hook]:
    """The hooks that a group's file defines; one written with ##name stands for every line of syscalls.def."""
    hooks: list[Hook] = []
    for match in FUNCTION.finditer(probe_files(bpf)[group].read_text(encoding="utf-8")):
        events = syscall_names(bpf) if match.group("each") else [match.group("event")]
        hooks.extend(Hook(match.group("kind"), event) for event in events)
    return hooks


class ProbeGroups:
    """The compiled and attached probes. disabled: {group: why}; warnings: sentences."""

    def __init__(
        self, bpf: pathlib.Path, tracefs: pathlib.Path, cflags: list[str], guards: str, types: TypeNumbers | None = None
    ) -> None:
        self.bpf = bpf
        self.types = types
        self.cflags = cflags
        self.guards = guards
        self.disabled: dict[str, str] = {}
        self.warnings: list[str] = []
        self.attached: dict[str, list[str]] = {}
        self.hooks: dict[str, list[Hook]] = {}
        self.without: set[str] = set()
        self.module: Any = None
        for group in probe_files(bpf):
            self._select(group, tracefs)

    def _select(self, group: str, tracefs: pathlib.Path) -> None:
        """Leave out what this kernel has no tracepoint for: a data call alone, of the other groups the whole."""
        hooks = group_hooks(self.bpf, group)
        missing = [hook for hook in hooks if not hook.exists(tracefs)]
        optional = set(syscall_names(self.bpf))
        if any(hook.syscall not in optional for hook in missing):
            self.disabled[group] = f"this kernel has no tracepoint {missing[0].event}"
            return
        gone = {hook.syscall for hook in missing}
        for name in sorted(gone - self.without):
            self.warnings.append(f"the system call {name} is not traced: this kernel has no tracepoint for it")
        self.without |= gone
        self.hooks[group] = [hook for hook in hooks if hook.syscall not in gone]

    def compile(self) -> None:
        """Compile all groups, or those that compile. Raises LoadFailure when none does."""
        groups = list(self.hooks)
        try:
            self.module = self._build(groups)
            return
        except Exception as e:  # noqa: BLE001 BCC raises plain Exception for every failed compilation
            first = e
        for group in groups:
            try:
                self._build([group])
            except Exception:  # noqa: BLE001
                self._disable(group, "its probes do not compile")
        if not self.hooks or len(self.hooks) == len(groups):
            raise LoadFailure(
                "the probes do not compile; reinstall deeptrace and python3-bpfcc, whose versions may not fit together", str(first)
            )
        self.module = self._build(list(self.hooks))

    def _build(self, groups: list[str]) -> Any:
        """A compiled module of these groups. Raises Exception, as BCC does for every failure."""
        from bcc import BPF  # here, so that the rest of the loader says clearly what is missing

        text = (flatten_groups(self.bpf, groups, without=frozenset(self.without)) + self.guards).encode()
        module = BPF(text=text, cflags=self.cflags + typed.flags(self.types, platform.release()))
        if self.types:
            typed.put_casts(module, self.types)
        return module

    def _disable(self, group: str, why: str) -> None:
        self.disabled[group] = why
        self.hooks.pop(group, None)

    def attach(self) -> None:
        """Load every group into the kernel, then attach what loaded. Raises LoadFailure when nothing did."""
        last = ""
        if self.types and not self._loads():
            self.types = None
            self.warnings.append(
                "this kernel refuses typed loads; the probes read its memory by calls, which cost some 100 ns more"
            )
            self.compile()
        for group in list(self.hooks):
            last = self._load_group(group) or last
        for group, hooks in list(self.hooks.items()):
            try:
                for hook in hooks:
                    self._attach_hook(hook)
            except Exception as e:  # noqa: BLE001
                last = f"{hook.event} cannot be attached: {e}"
                self._detach(hooks)
                self._disable(group, last)
                continue
            self.attached[group] = [hook.event for hook in hooks]
        if not self.attached:
            raise LoadFailure(f"no probe could be loaded ({last}); DeepTrace needs CAP_BPF and CAP_PERFMON (run it as root)")

    def _loads(self) -> bool:
        """Whether the kernel takes the programs of the data calls. What it took stays loaded."""
        try:
            for hook in self.hooks.get("socket_io", []):
                self.module.load_func(hook.function, self.module.RAW_TRACEPOINT if hook.is_raw else self.module.TRACEPOINT)
        except Exception:  # noqa: BLE001 BCC raises plain Exception for every refused program
            return False
        return True

    def _load_group(self, group: str) -> str:
        """Load a group's programs. A data call that the kernel refuses is left out alone. Returns the last refusal."""
        module, optional, last = self.module, set(syscall_names(self.bpf)), ""
        for hook in list(self.hooks[group]):
            if hook not in self.hooks[group]:
                continue  # its partner was refused
            try:
                module.load_func(hook.function, module.RAW_TRACEPOINT if hook.is_raw else module.TRACEPOINT)
            except Exception as e:  # noqa: BLE001 BCC raises plain Exception for every refused program
                last = f"the kernel refused {hook.function}: {e}"
                left = [other for other in self.hooks[group] if other.syscall != hook.syscall]
                if hook.syscall not in optional or not left:
                    self._disable(group, last)
                    break
                self.hooks[group] = left
                self.warnings.append(f"the system call {hook.syscall} is not traced: {last}")
        return last

    def _attach_hook(self, hook: Hook) -> None:
        if hook.is_raw:
            self.module.attach_raw_tracepoint(tp=hook.event, fn_name=hook.function)
        else:
            self.module.attach_tracepoint(tp="syscalls:" + hook.event, fn_name=hook.function)

    def _detach(self, hooks: list[Hook]) -> None:
        for hook in hooks:
            table = self.module.raw_tracepoint_fds if hook.is_raw else self.module.tracepoint_fds
            name = hook.event if hook.is_raw else "syscalls:" + hook.event
            fd = table.pop(name.encode(), None)
            if fd is not None:
                os.close(fd)

    def drop(self, group: str, why: str) -> None:
        """Detach a group that was attached, for a reason that showed later."""
        self._detach(self.hooks.get(group, []))
        self.attached.pop(group, None)
        self._disable(group, why)

    def drop_call(self, syscall: str, why: str) -> None:
        """Detach one data call; the others of its group stay."""
        for group, hooks in self.hooks.items():
            self._detach([hook for hook in hooks if hook.syscall == syscall])
            self.hooks[group] = [hook for hook in hooks if hook.syscall != syscall]
            self.attached[group] = [hook.event for hook in self.hooks[group]]
        self.warnings.append(f"the system call {syscall} is not traced: {why}")

    def programs(self) -> dict[str, int]:
        """{function: descriptor} of the attached programs."""
        wanted = {hook.function for hooks in self.hooks.values() for hook in hooks}
        return {name: fn.fd for name, fn in ((k.decode(), v) for k, v in self.module.funcs.items()) if name in wanted}

    def attachments(self) -> list[int]:
        """Descriptors whose closing detaches the programs."""
        return [*self.module.tracepoint_fds.values(), *self.module.raw_tracepoint_fds.values()]

    def maps(self, names: list[str]) -> dict[str, int]:
        """{name: descriptor}, without those of groups that are left out."""
        found = {}
        for name in names:
            with contextlib.suppress(KeyError):
                found[name] = self.module[name].map_fd
        return found
