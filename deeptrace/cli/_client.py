"""HTTP client of the query API for the verbs that read from a running server. Standard library only; knows no SQL and no store."""

import http.client
import json
import os
import pathlib
import re
import urllib.parse
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from deeptrace.config import Server as ServerSettings
from deeptrace.errors import DeepTraceError, ServerUnreachable, UsageError

TIMEOUT_S = 60.0  # the longest query on a large store; a dead server refuses at once
API = "/api/v1/"

ServerOption = Annotated[str, typer.Option("--server", metavar="ADDR", help="Query address of the server (HOST:PORT).")]
DataOption = Annotated[str, typer.Option("--data", metavar="DIR", help="Data folder of a running server on this host.")]
SinceOption = Annotated[str, typer.Option("--since", metavar="S", help="How far back to look: 30s, 5m, 2h, 1d or seconds.")]

_UNITS = {"": 1.0, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Client:
    """Asks one server. Each call is one connection; raises ServerUnreachable when nobody answers."""

    def __init__(self, server: str = "", data: str = "") -> None:
        if server and data:
            raise UsageError("--server and --data both name the server; give one of them")
        self.address = _check_address(server) if server else _address_of(data)

    def get(self, path: str, parameters: dict[str, Any] | None = None) -> Any:
        """The JSON answer to GET /api/v1/path; empty parameters are left out. Raises DeepTraceError with the server's sentence."""
        connection, response = self._open(path, parameters)
        try:
            return json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as e:
            raise ServerUnreachable(f"the server at {self.address} broke off its answer: {e}") from e
        finally:
            connection.close()

    def lines(self, path: str, parameters: dict[str, Any] | None = None) -> Iterator[Any]:
        """The objects of a streaming answer as they come, until the server ends it."""
        connection, response = self._open(path, parameters, timeout_s=None)
        try:
            while line := response.readline():
                if line.strip():
                    yield json.loads(line)
        except (OSError, http.client.HTTPException, ValueError) as e:
            raise ServerUnreachable(f"the server at {self.address} broke off its answer: {e}") from e
        finally:
            connection.close()

    def _open(
        self, path: str, parameters: dict[str, Any] | None, timeout_s: float | None = TIMEOUT_S
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        query = urllib.parse.urlencode({k: v for k, v in (parameters or {}).items() if v not in ("", None)})
        connection = http.client.HTTPConnection(self.address, timeout=timeout_s)
        try:
            connection.request("GET", f"{API}{path}" + (f"?{query}" if query else ""))
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as e:
            connection.close()
            reason = e.strerror if isinstance(e, OSError) and e.strerror else str(e) or type(e).__name__
            if isinstance(e, TimeoutError):
                reason = f"no answer within {timeout_s:.0f} s"
            raise ServerUnreachable(
                f"no DeepTrace server answers at {self.address}: {reason}; start one with 'deeptrace up'"
            ) from e
        if response.status != 200:
            error = _error(response, self.address)
            connection.close()
            raise error
        return connection, response


def since_seconds(text: str) -> float:
    """Seconds of "30s", "5m", "2h", "1d", "90". Raises UsageError."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d|)", text.strip())
    if match is None:
        raise UsageError(f"--since {text!r} is not a duration; write for example 30s, 5m, 2h or 1d")
    return float(match[1]) * _UNITS[match[2]]


def _check_address(server: str) -> str:
    address = server.removeprefix("http://").rstrip("/")
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"--server {server!r} is not an address; write HOST:PORT, such as {ServerSettings().http}")
    return address


def _address_of(data: str) -> str:
    """The address that the server of a data folder wrote down; the default address when no folder is given."""
    folder = pathlib.Path(data or ServerSettings().data)
    path = folder / "server.json"
    try:
        state = json.loads(path.read_text())
        address, pid = str(state["http"]), int(state["pid"])
    except FileNotFoundError as e:
        if not data:
            return ServerSettings().http
        raise ServerUnreachable(f"no DeepTrace server runs on the data folder {folder}: {path} is not there") from e
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise ServerUnreachable(f"the file {path} of the server cannot be read: {e}") from e
    if not os.path.exists(f"/proc/{pid}") and data:
        raise ServerUnreachable(f"the DeepTrace server of the data folder {folder} (process {pid}) runs no more")
    return address


def _error(response: http.client.HTTPResponse, address: str) -> DeepTraceError:
    """The server's sentence for an answer that is not 200."""
    try:
        message = str(json.loads(response.read())["error"])
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        message = f"the server at {address} answered with status {response.status}"
    return UsageError(message) if response.status == 400 else DeepTraceError(message)
