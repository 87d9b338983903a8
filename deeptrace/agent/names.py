"""Service and container names from what a process shows of itself: command line, comm, cgroup. Reads nothing itself.

The rule, first that applies: configuration; systemd unit; script or module of an interpreter; executable. Everything used here
can be read without any privilege: /proc/PID/exe would need CAP_SYS_PTRACE and adds nothing that this rule needs.
"""

import re
from collections.abc import Mapping, Sequence

COMM_MAX = 15  # bytes of a comm without its NUL (TASK_COMM_LEN); longer names are cut to this
MAX_NAME = 100  # characters of a service name: names end up in every table of the store

# Docker, containerd, CRI-O and Podman name the cgroup of a container by its 64 hex digits, alone or with a prefix
# ("docker-", "cri-containerd-", "crio-", "libpod-", ":cri-containerd:") and perhaps ".scope".
_CONTAINER = re.compile(r"(?:^|[/:-])([0-9a-f]{64})(?:\.scope)?(?=/|$)")
_UNIT = re.compile(r"/([^/]+)\.service(?=/|$)")
_PYTHON = re.compile(r"(?:python|pypy)[0-9.]*")
_APP = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.()]*")  # gunicorn's and uvicorn's module:application
_APP_SERVERS = frozenset({"gunicorn", "uvicorn", "hypercorn", "daphne", "granian"})
_LAUNCHERS = frozenset({"__main__", "flask", "celery", "uwsgi"})  # scripts that say little; their argument may say more

# Options that take the next argument as their value, by interpreter: it must not be taken for the script.
_VALUE_OPTIONS: dict[str, frozenset[str]] = {
    "python": frozenset({"-W", "-X", "--check-hash-based-pycs"}),
    "node": frozenset({"-r", "--require", "--import", "--loader", "--experimental-loader", "-C", "--conditions", "--env-file"}),
    "ruby": frozenset({"-I", "-r", "-C", "-E"}),
    "perl": frozenset({"-I"}),
    "php": frozenset({"-c", "-d", "-z", "-S", "-t"}),
    "java": frozenset({"-cp", "-classpath", "--class-path", "-p", "--module-path", "--add-modules"}),
}


def container_id(cgroup: str) -> str | None:
    """The innermost container of /proc/PID/cgroup (v1, v2 or both), 64 hex digits; None outside of containers."""
    for path in _cgroup_paths(cgroup):
        found = _CONTAINER.findall(path)
        if found:
            return str(found[-1])
    return None


def systemd_unit(cgroup: str) -> str | None:
    """The service unit of a process without its suffix; None for sessions, user managers and what has no unit."""
    for path in _cgroup_paths(cgroup):
        containers = list(_CONTAINER.finditer(path))
        # The engine's own unit stands before the container's id and does not name what runs inside.
        inside = path[containers[-1].end() :] if containers else path
        units = [u for u in _UNIT.findall(inside) if not u.startswith("user@")]
        if units:
            return str(units[-1])
    return None


def service_name(cmdline: Sequence[str], comm: str, cgroup: str, overrides: Mapping[str, str], pid: int) -> str:
    """The service of a process by the rule above. cmdline: empty when it could not be read."""
    executable = executable_name(cmdline, comm)
    script = script_name(cmdline)
    for key in (str(pid), script, executable):
        if key and key in overrides:
            return overrides[key][:MAX_NAME]
    name = systemd_unit(cgroup) or (stem(script) if script else executable)
    return name[:MAX_NAME]


def executable_name(cmdline: Sequence[str], comm: str) -> str:
    """The executable's file name. A process that rewrote its arguments ("nginx: worker process") is known by its comm."""
    base = cmdline[0].rsplit("/", 1)[-1].removeprefix("-") if cmdline else ""
    full = base if base.isprintable() and " " not in base and not base.endswith(":") else ""
    if comm and full[:COMM_MAX] != comm[:COMM_MAX] and not interpreter(full):
        return comm
    return full or comm


def interpreter(executable: str) -> str:
    """Which interpreter an executable is, by its file name; "" for none."""
    if _PYTHON.fullmatch(executable):
        return "python"
    for name in ("node", "ruby", "perl", "php", "java"):
        if executable == name or re.fullmatch(rf"{name}(?:js)?[0-9.]*", executable):
            return name
    return ""


def script_name(cmdline: Sequence[str]) -> str:
    """The script, module, jar or main class that an interpreter runs ("app.py", "shop.orders"); "" if it runs none."""
    kind = interpreter(cmdline[0].rsplit("/", 1)[-1]) if cmdline else ""
    if not kind:
        return ""
    arguments = list(cmdline[1:])
    while arguments:
        argument = arguments.pop(0)
        if kind == "python" and argument.startswith("-") and argument.endswith("m") and not argument.startswith("--"):
            return _application(arguments[0], arguments[1:]) if arguments else ""
        if kind == "java" and argument in ("-jar", "-m", "--module"):
            return arguments[0].rsplit("/", 1)[-1] if arguments else ""
        if argument in ("-c", "-e", "--eval", "-p", "--print", "-") and kind != "java":
            return ""  # a program on the command line has no name
        if argument in _VALUE_OPTIONS[kind]:
            del arguments[:1]
        elif not argument.startswith("-"):
            return _application(argument.rsplit("/", 1)[-1], arguments)
    return ""


def stem(script: str) -> str:
    """A script without the suffix of its language."""
    return re.sub(r"\.(?:pyc?|[cm]?js|ts|rb|pl|php|jar)$", "", script) or script


def _application(script: str, arguments: Sequence[str]) -> str:
    """What a launcher launches, where its arguments say so: "shop.orders" for `uvicorn shop.orders:app`."""
    name = stem(script).rsplit(".", 1)[-1]
    if name in _APP_SERVERS or name in _LAUNCHERS:
        named = next((a for a in arguments if _APP.fullmatch(a)), "")
        if named:
            return named.split(":", 1)[0]
    return script


def _cgroup_paths(cgroup: str) -> list[str]:
    """Paths of /proc/PID/cgroup: "0::/path" (v2) and "4:memory:/path" (v1), the systemd hierarchies first."""
    lines = [line.split(":", 2) for line in cgroup.splitlines() if line.count(":") >= 2]
    lines.sort(key=lambda parts: parts[1] not in ("", "name=systemd"))
    return [parts[2] for parts in lines]
