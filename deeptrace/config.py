"""Every setting of DeepTrace: one field each, with default, bounds, unit and help.

The command line option, the TOML key, the environment name and the row in docs/settings.md all come from the field.
Order of precedence: command line, environment, file, default. No other module reads the environment.
"""

import json
import os
import pathlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from deeptrace.errors import UsageError

ENV_PREFIX = "DEEPTRACE_"


class Capture(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the probes take."""

    pid: Annotated[list[int], Meta(description="Trace these processes and their children. Without any filter: every process.")] = []
    comm: Annotated[list[str], Meta(description="Trace processes of these names, as 'ps -o comm' shows them.")] = []
    exe: Annotated[list[str], Meta(description="Trace processes that execute these files.")] = []
    cgroup: Annotated[
        list[str],
        Meta(description="Trace containers, units and cgroups, by id (12 digits or more), name, pattern or path."),
    ] = []
    port: Annotated[list[int], Meta(description="Trace only connections with these ports, at either end.")] = []
    deny_pid: Annotated[list[int], Meta(description="Never trace these processes and their children.")] = []
    deny_comm: Annotated[list[str], Meta(description="Never trace processes of these names.")] = []
    deny_exe: Annotated[list[str], Meta(description="Never trace processes that execute these files.")] = []
    deny_cgroup: Annotated[list[str], Meta(description="Never trace these containers, units and cgroups.")] = []
    deny_port: Annotated[list[int], Meta(description="Never trace connections with these ports, at either end.")] = []
    payload_bytes: Annotated[int, Meta(ge=0, le=16384, description="Payload copied per system call.", extra={"unit": "bytes"})] = (
        1024
    )
    payload_max_bytes: Annotated[
        int,
        Meta(
            ge=0,
            le=16384,
            description="The same for connections that need more to be understood, such as pipelines: 1,024 at a time at most.",
            extra={"unit": "bytes"},
        ),
    ] = 16384
    head_bytes: Annotated[
        int,
        Meta(
            ge=0,
            le=16384,
            description="First bytes of each direction of a connection that are copied whole.",
            extra={"unit": "bytes"},
        ),
    ] = 4096
    unix_sockets: Annotated[
        Literal["on", "off"], Meta(description="Unix stream sockets: off, or on until their protocol turns out to be none of ours.")
    ] = "on"
    events_per_s: Annotated[
        int,
        Meta(
            ge=0,
            le=(1 << 32) - 1,
            description="Most records per second of one CPU; beyond it whole connections are shed and counted. 0: no bound.",
            extra={"unit": "/s"},
        ),
    ] = 250_000
    bytes_per_s: Annotated[int, Meta(ge=0, description="The same for bytes, with their payload.", extra={"unit": "bytes/s"})] = (
        256 << 20
    )
    ring_bytes: Annotated[int, Meta(ge=1 << 16, description="Memory of all rings together.", extra={"unit": "bytes"})] = 64 << 20
    max_pids: Annotated[
        int, Meta(ge=64, le=1 << 22, description="Processes that filters tell apart; 64 bytes each, taken at the start.")
    ] = 65536
    max_threads: Annotated[
        int,
        Meta(
            ge=256,
            le=1 << 22,
            description="Threads that move bytes, a power of two; 112 bytes each. From kernel.pid_max on no two share a place.",
        ),
    ] = 65536
    max_sockets: Annotated[
        int,
        Meta(ge=64, le=1 << 22, description="Sockets that the probes remember; 110 bytes each. The oldest is forgotten first."),
    ] = 131072
    python: Annotated[str, Meta(description="The system's Python, which has BCC: it loads the probes.")] = "/usr/bin/python3"


class Agent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the agent turns records into spans."""

    drain_ms: Annotated[
        float,
        Meta(
            gt=0,
            le=1000,
            description="Time between two reads of the rings; a ring that fills is read at once.",
            extra={"unit": "ms"},
        ),
    ] = 20.0
    request_timeout_s: Annotated[
        float,
        Meta(
            gt=0,
            description="A request without a response for this long becomes a span with error_type timeout.",
            extra={"unit": "s"},
        ),
    ] = 60.0
    max_flows: Annotated[int, Meta(ge=16, description="Connections followed at the same time.")] = 65536
    flow_idle_s: Annotated[
        float, Meta(gt=0, description="A silent connection is forgotten after this long.", extra={"unit": "s"})
    ] = 300.0
    service: Annotated[
        dict[str, str], Meta(description="Service names by executable, script or process id, over what is found out.")
    ] = {}
    host: Annotated[str, Meta(description="Name of this host in spans; empty: the system's host name.")] = ""
    log_level: Annotated[
        Literal["", "warning", "info", "debug"], Meta(description="warning, info or debug; empty: as -v says.")
    ] = ""


class Ship(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How batches reach the server."""

    server: Annotated[str, Meta(description="Address of the server's gRPC port.")] = "127.0.0.1:4417"
    batch_spans: Annotated[int, Meta(ge=1, le=1 << 20, description="Spans in one batch at most.")] = 20000
    batch_ms: Annotated[
        float, Meta(gt=0, description="A batch is sent after this long even when it is small.", extra={"unit": "ms"})
    ] = 200.0
    queue_spans: Annotated[
        int,
        Meta(
            ge=1,
            description="Spans held while the server is slow or away; beyond it, new ones are dropped and counted.",
        ),
    ] = 2_000_000


class Server(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the server listens and keeps its data."""

    grpc: Annotated[str, Meta(description="Address that agents ship to; port 0: any free one.")] = "127.0.0.1:4417"
    http: Annotated[str, Meta(description="Address of the query API; port 0: any free one.")] = "127.0.0.1:4480"
    data: Annotated[str, Meta(description="Folder of the store.")] = "/var/lib/deeptrace"
    settle_s: Annotated[float, Meta(gt=0, description="Links of a span settle after this long.", extra={"unit": "s"})] = 10.0


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings, by section."""

    capture: Capture = Capture()
    agent: Agent = Agent()
    ship: Ship = Ship()
    server: Server = Server()


@dataclass(frozen=True)
class Field:
    """One setting as the command line, the environment and the documentation see it."""

    section: str
    name: str
    type: Any
    default: Any
    unit: str
    help: str

    @property
    def key(self) -> str:
        return f"{self.section}.{self.name}"

    @property
    def env(self) -> str:
        return f"{ENV_PREFIX}{self.section}_{self.name}".upper()

    @property
    def option(self) -> str:
        return "--" + self.name.replace("_", "-")


def fields() -> list[Field]:
    """All settings in the order of their declaration."""
    found = []
    for section in msgspec.structs.fields(Settings):
        hints = get_type_hints(section.type, include_extras=True)
        for field in msgspec.structs.fields(section.type):
            hint = hints[field.name]
            meta = next((m for m in get_args(hint)[1:] if isinstance(m, Meta)), Meta()) if get_origin(hint) is Annotated else Meta()
            base = get_args(hint)[0] if get_origin(hint) is Annotated else hint
            default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
            unit = (meta.extra or {}).get("unit", "")
            found.append(Field(section.name, field.name, base, default, unit, meta.description or ""))
    return found


def field_named(key: str) -> Field:
    """The setting "section.name". Raises KeyError when there is none."""
    return {field.key: field for field in fields()}[key]


def load(
    *, file: str | None = None, overrides: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    """Settings from a TOML file, the environment and overrides ({"capture.pid": [1]}). Raises UsageError naming the setting."""
    environ = os.environ if environ is None else environ
    tree: dict[str, dict[str, Any]] = {}
    if file:
        try:
            tree = tomllib.loads(pathlib.Path(file).read_text())
        except (OSError, tomllib.TOMLDecodeError) as e:
            raise UsageError(f"cannot read settings from {file}: {e}") from e
    for field in fields():
        if field.env in environ:
            origin = f"the environment variable {field.env}={environ[field.env]!r}"
            tree.setdefault(field.section, {})[field.name] = from_text(field, environ[field.env], origin=origin)
    for key, value in (overrides or {}).items():
        section, name = key.split(".")
        tree.setdefault(section, {})[name] = value
    try:
        return msgspec.convert(tree, Settings, strict=True)
    except msgspec.ValidationError as e:
        raise UsageError(f"a setting cannot be used: {e}; see docs/settings.md") from e


def assignments(settings: Settings) -> list[str]:
    """What differs from the defaults as "section.key=value", the way from_text reads it: to hand settings to a child."""
    found = []
    for field in fields():
        value = getattr(getattr(settings, field.section), field.name)
        if value != field.default:
            found.append(f"{field.key}={to_text(value)}")
    return found


def changed(before: Settings, after: Settings) -> list[str]:
    """Keys of the settings that differ."""
    return [
        field.key
        for field in fields()
        if getattr(getattr(before, field.section), field.name) != getattr(getattr(after, field.section), field.name)
    ]


def to_text(value: Any) -> str:
    """The reverse of from_text."""
    if isinstance(value, dict):
        return ",".join(f"{k}={v}" for k, v in value.items())
    if isinstance(value, list):
        return json.dumps(value) if any("," in str(item) for item in value) else ",".join(map(str, value))
    return str(value)


def from_text(field: Field, text: str, *, origin: str) -> Any:
    """Parse a value by the field's type: lists are comma separated (or ["a,b"], for items with commas), maps are a=b pairs. origin:
    what the error names."""
    kind = get_origin(field.type) or field.type
    try:
        if kind is list:
            item = get_args(field.type)[0]
            parts = json.loads(text) if text.startswith('["') else text.split(",")
            return [item(part) for part in parts if part]
        if kind is dict:
            return dict(part.split("=", 1) for part in text.split(",") if part)
        return kind(text) if kind in (int, float, str) else text
    except ValueError as e:
        raise UsageError(f"{origin} does not hold {field.help!r}: {e}") from e
