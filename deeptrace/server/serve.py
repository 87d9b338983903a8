"""The server as one object: store, writer, ingest, correlator and API, started and stopped in order."""

import contextlib
import logging
import os
import pathlib
import socket
import threading
import time
from typing import Any

import msgspec
import uvicorn

from deeptrace import clock, log
from deeptrace.config import Settings
from deeptrace.counters import PythonCounters, events_lost
from deeptrace.errors import DeepTraceError, StoreError
from deeptrace.ledger import check, is_balanced
from deeptrace.server.agents import Agents
from deeptrace.server.api import Api
from deeptrace.server.correlator import Correlator
from deeptrace.server.ingest import Ingest
from deeptrace.server.live import Live
from deeptrace.server.memory import return_large_blocks, trim
from deeptrace.server.store.store import Store
from deeptrace.server.wal import WriteAheadLog, replace_file
from deeptrace.server.writer import Listener, Writer

logger = logging.getLogger("deeptrace.server")

START_TIMEOUT_S = 20.0  # for the HTTP side to begin
SAVE_REPORTS_S = 10.0  # how often agents' ledgers go to the store


class Server:
    """A running server. start() returns once agents and queries are served; stop() leaves everything on disk."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.data = pathlib.Path(settings.server.data).absolute()
        self.grpc = self.http = ""
        self._stack = contextlib.ExitStack()
        self._counters = PythonCounters()
        self._stopping = threading.Event()

    def start(self) -> None:
        """Raises DeepTraceError with a sentence when the folder, the disk or a port cannot be used; nothing is left running."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End all threads in the reverse order of their start. Twice does no harm."""
        self._stopping.set()
        self._stack.close()

    def check(self) -> None:
        """Raises DeepTraceError when a thread of the server has died of a defect: it must not look alive then."""
        if not self._writer.is_alive:
            raise DeepTraceError("the server's writer has died; what went wrong is in the log; what was acknowledged is stored")
        if not self._correlator.is_alive:
            raise DeepTraceError("the server's correlator has died; what went wrong is in the log; spans are stored, links are not")

    def ready(self) -> dict[str, Any]:
        """The ready line."""
        return {"event": "ready", "pid": os.getpid(), "grpc": self.grpc, "http": self.http, "data": str(self.data)}

    def _start(self) -> None:
        return_large_blocks()
        http_socket = self._stack.enter_context(_listen(self._settings.server.http))
        self.http = _address(http_socket)
        self._store = Store(self.data)
        self._stack.callback(self._store.close)
        self._agents = Agents()
        self._agents.load(self._store)
        self._live = Live()
        self._correlator = Correlator(self._store, self.data, self._counters, settle_s=self._settings.server.settle_s)
        listeners: list[Listener] = [self._correlator.feed, self._live.feed]
        self._writer = Writer(self._store, WriteAheadLog(self.data), self._counters, listeners)
        ingest = Ingest(self._writer, self._agents, boot_id())
        self._stack.callback(ingest.stop)
        self.grpc = ingest.bind(self._settings.server.grpc)
        self._writer.start()
        self._stack.callback(self._writer.stop)
        self._correlator.start()
        self._stack.callback(self._correlator.stop)
        self._start_http(http_socket)
        ingest.start()
        self._stack.callback(ingest.stop)  # before the writer stops: what is in its queue is still answered
        threading.Thread(target=self._save_reports, name="dt-reports", daemon=True).start()
        line = msgspec.json.encode({"grpc": self.grpc, "http": self.http, "pid": os.getpid()}) + b"\n"
        replace_file(self.data / "server.json", line)
        self._stack.callback((self.data / "server.json").unlink, missing_ok=True)

    def _start_http(self, http_socket: socket.socket) -> None:
        api = Api(self._store, self._live, self.doctor)
        config = uvicorn.Config(api.app, log_config=None, access_log=False, timeout_graceful_shutdown=3, lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([http_socket],), name="dt-http", daemon=True)
        thread.start()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not server.started:
            if not thread.is_alive() or time.monotonic() > deadline:
                raise DeepTraceError(f"the query API could not be started at {self.http}")
            time.sleep(0.01)

        def stop() -> None:
            self._live.close()
            server.should_exit = True
            thread.join(timeout=10)
            api.close()

        self._stack.callback(stop)

    def _save_reports(self) -> None:
        while not self._stopping.wait(SAVE_REPORTS_S):
            try:
                self._agents.save(self._store, clock.unix_ns())
            except StoreError as e:
                log.event(logger, logging.INFO, "agents' ledgers were not saved", reason=str(e))
            trim()

    def doctor(self) -> dict[str, Any]:
        """The state of the server and the last ledger of each agent."""
        values = self._writer.values() | self._correlator.gauges()
        balances = check(values)
        return {
            "server": {
                **self.ready(),
                "counters": values,
                "balances": [_balance(b) for b in balances],
                "balanced": is_balanced(balances),
                "store": self._store.size(),
                "store_error": self._writer.store_error or None,
            },
            "agents": [
                {
                    **msgspec.structs.asdict(report),
                    "balances": [_balance(b) for b in report.balances],
                    "balanced": is_balanced(report.balances) if report.balances else None,  # None: it has not said yet
                    "events_lost": events_lost(report.values),
                }
                for report in self._agents.reports()
            ],
        }


def boot_id() -> str:
    """The kernel's id of this boot; empty where there is none."""
    try:
        return pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def split_address(address: str) -> tuple[str, int]:
    """("::1", 80) of "[::1]:80". Raises DeepTraceError."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise DeepTraceError(f"{address!r} is not an address; write HOST:PORT, such as 127.0.0.1:4480")
    return host.strip("[]"), int(port)


def _listen(address: str) -> socket.socket:
    host, port = split_address(address)
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except OSError as e:
        listener.close()
        raise DeepTraceError(
            f"the address {address} for queries cannot be used: {e.strerror or e}; choose another with --http"
        ) from e
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _balance(balance: Any) -> dict[str, Any]:
    return {
        "name": balance.name, "left": balance.left, "right": balance.right, "slack": balance.slack, "balanced": balance.balanced,
    }  # fmt: skip
