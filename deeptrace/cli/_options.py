"""Turns settings into command line options. A verb names the settings it shows; all others are reachable by --set."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_origin

import typer

from deeptrace.config import Field, field_named, fields, from_text, load
from deeptrace.errors import UsageError

ConfigOption = Annotated[str | None, typer.Option("--config", metavar="FILE", help="TOML file with settings.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Any other setting; may be repeated.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text for people.")]


READER = "read_settings"
# Which processes and connections are traced: the lists of [capture].
FILTERS = tuple(field.key for field in fields() if field.section == "capture" and get_origin(field.type) is list)


def settings_options(*keys: str, **names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a verb's `command(settings: Settings, ...)`: its `settings` is built from one option per key ("server.data"),
    --set, --config, the environment and the defaults. A command that also takes `read_settings` gets what reads them again, None
    without --config: nothing else can change. names: another option name by key with "_" for "." (server_grpc="--x").
    """
    chosen = [field_named(key) for key in keys]
    options = {field.key: names.get(field.key.replace(".", "_"), field.option) for field in chosen}

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(command, eval_str=True)
        takes_reader = READER in signature.parameters

        @functools.wraps(command)
        def with_settings(**arguments: Any) -> Any:
            config = arguments.pop("config")
            overrides = parse_assignments(arguments.pop("set") or [])
            for field in chosen:
                value = arguments.pop(parameter_name(field))
                if value:
                    overrides[field.key] = _pairs(value) if get_origin(field.type) is dict else value
                elif value is not None and not isinstance(value, list):
                    overrides[field.key] = value
            read = functools.partial(load, file=config, overrides=overrides)
            if takes_reader:
                arguments[READER] = read if config else None
            return command(settings=read(), **arguments)

        parameters = [_parameter(field, options[field.key]) for field in chosen]
        parameters += [_keyword("set", SetOption, None), _keyword("config", ConfigOption, None)]
        own = [p for p in signature.parameters.values() if p.name not in ("settings", READER)]
        parameters += [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
        with_settings.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        with_settings.__annotations__ = {p.name: p.annotation for p in parameters}
        del with_settings.__wrapped__  # typer must see this signature, not the command's
        return with_settings

    return decorate


def parse_assignments(texts: list[str]) -> dict[str, Any]:
    """["ship.batch_ms=50"] -> {"ship.batch_ms": 50.0}. Raises UsageError naming what is wrong."""
    found: dict[str, Any] = {}
    known = {field.key: field for field in fields()}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--set {text}: write section.key=value")
        if key not in known:
            raise UsageError(f"--set {text}: there is no setting {key!r}; docs/settings.md lists them")
        found[key] = from_text(known[key], value, origin=f"--set {text}")
    return found


def parameter_name(field: Field) -> str:
    return field.key.replace(".", "_")


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _parameter(field: Field, option: str) -> inspect.Parameter:
    """The option of one setting. It has no default of its own: what was not given comes from file, environment or field."""
    base: Any = list[str] if get_origin(field.type) is dict else field.type
    metavar = "NAME=NAME" if get_origin(field.type) is dict else field.name.rsplit("_", 1)[-1].upper()
    default = "" if field.default in ([], {}, "") else f" [default: {field.default}{' ' + field.unit if field.unit else ''}]"
    info = typer.Option(option, metavar=metavar, help=field.help + default, show_default=False)
    return _keyword(parameter_name(field), Annotated[base | None, info], None)


def _pairs(texts: list[str]) -> dict[str, str]:
    bad = next((t for t in texts if "=" not in t), None)
    if bad is not None:
        raise UsageError(f"{bad!r} is not a pair; write NAME=NAME")
    return dict(text.split("=", 1) for text in texts)
