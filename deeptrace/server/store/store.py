"""The tables and their one driver: opens the embedded engine, makes the schema, inserts Arrow tables, runs queries.

One client per thread, made when first used. Knows no span, no HTTP and no gRPC. One process per data folder.
"""

import fcntl
import os
import pathlib
import threading
from collections.abc import Mapping
from typing import Any

import clickhouse_connect
import pyarrow as pa
from clickhouse_connect.driver.exceptions import ClickHouseError

from deeptrace.errors import StoreError

DATABASE = "deeptrace"
SQL_FOLDER = pathlib.Path(__file__).parent / "sql"
SETTINGS = {
    "max_threads": 2,  # of one query; agents and traced services share the machine
    "max_insert_threads": 1,
    "min_insert_block_size_rows": 4 << 20,  # above the largest group: its rows become one block ...
    "min_insert_block_size_bytes": 0,  # ... whatever its size, so that a group is stored whole or not at all
    "max_partitions_per_insert_block": 0,  # ingest bounds the days of a batch (ingest.MAX_DAYS)
    "do_not_merge_across_partitions_select_final": 1,  # a span's versions all have its start, thus its partition
}
MIN_FREE_BYTES = 16 << 20  # an empty store takes 1 MB; below this the first merges would fail


class Store:
    """The store in one folder. Raises StoreError when it cannot be opened; `close` from the thread that made it."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self._lock_file = _lock(folder)
        self._local = threading.local()
        self._clients: list[Any] = []
        self._clients_lock = threading.Lock()
        try:
            _check_space(folder)
            self._make_schema()
        except StoreError:
            self.close()
            raise

    def insert(self, table: str, rows: pa.Table, *, token: str | None = None) -> None:
        """Append rows; columns by name. A token that was used before (of the last 1,000) stores nothing. Raises StoreError;
        then nothing was stored, or, across days, a whole number of days was."""
        settings = {} if token is None else {"insert_deduplication_token": token}
        try:
            self._client().insert_arrow(f"{DATABASE}.{table}", rows, settings=settings)
        except (ClickHouseError, OSError, RuntimeError) as e:
            raise StoreError(_sentence(f"the store at {self.folder} refused {rows.num_rows} rows for {table}", e)) from e

    def arrow(self, sql: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
        """Run a query; `{db}` stands for the database, {name:Type} for parameters. Raises StoreError."""
        try:
            return self._client().query_arrow(sql.replace("{db}", DATABASE), parameters=dict(parameters or {}), use_strings=True)
        except (ClickHouseError, OSError, RuntimeError) as e:
            raise StoreError(_sentence(f"the store at {self.folder} could not answer", e)) from e

    def rows(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """As `arrow`, as one dict per row: for small results."""
        result: list[dict[str, Any]] = self.arrow(sql, parameters).to_pylist()
        return result

    def size(self) -> dict[str, dict[str, int]]:
        """Rows and bytes on disk by table."""
        sql = """SELECT name, toUInt64(ifNull(total_rows, 0)) AS n_rows, toUInt64(ifNull(total_bytes, 0)) AS n_bytes
                 FROM system.tables WHERE database = '{db}' ORDER BY name"""
        return {row["name"]: {"rows": row["n_rows"], "bytes": row["n_bytes"]} for row in self.rows(sql)}

    def close(self) -> None:
        with self._clients_lock:
            clients, self._clients = self._clients, []
        for client in clients:
            client.close()
        os.close(self._lock_file)

    def _client(self) -> Any:
        client = getattr(self._local, "client", None)
        if client is None:
            client = clickhouse_connect.get_client(dsn=f"chdb://{self.folder / 'store'}", settings=SETTINGS)
            with self._clients_lock:
                self._clients.append(client)
            self._local.client = client
        return client

    def _make_schema(self) -> None:
        try:
            client = self._client()
            client.command(f"CREATE DATABASE IF NOT EXISTS {DATABASE}")
            for path in sorted(SQL_FOLDER.glob("*.sql")):
                text = path.read_text()
                client.command(text.format(database=DATABASE, engine="", cluster=""))
        except (ClickHouseError, OSError, RuntimeError) as e:
            raise StoreError(_sentence(f"the store at {self.folder} cannot be opened", e)) from e


def _lock(folder: pathlib.Path) -> int:
    """Hold the folder's lock file for this process. Raises StoreError when another server has it."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # The folder may have been there, open to others; what the engine writes in it is for its owner alone all the same.
        store = folder / "store"
        store.mkdir(exist_ok=True, mode=0o700)
        store.chmod(0o700)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as e:
        raise StoreError(f"the data folder {folder} cannot be used: {e.strerror}; choose another with --data") from e
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        os.close(descriptor)
        raise StoreError(f"another DeepTrace server uses the data folder {folder}; stop it or choose another with --data") from e
    return descriptor


def _check_space(folder: pathlib.Path) -> None:
    """Raise StoreError unless some space is left: the engine's own message for a full disk at start is unreadable."""
    probe = folder / "space-probe"
    try:
        probe.write_bytes(bytes(1 << 16))
        probe.unlink()
        status = os.statvfs(folder)
    except OSError as e:
        raise StoreError(
            f"the data folder {folder} cannot be written: {e.strerror}; free some space or choose another with --data"
        ) from e
    if status.f_bavail * status.f_frsize < MIN_FREE_BYTES:
        raise StoreError(
            f"the disk of the data folder {folder} is full: {status.f_bavail * status.f_frsize >> 20} MiB are left, "
            f"{MIN_FREE_BYTES >> 20} MiB are needed; free some space or choose another with --data"
        )


def _sentence(what: str, error: Exception) -> str:
    """One line of an engine's error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return f"{what}: {lines[0][:300]}"
