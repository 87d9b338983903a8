"""Spans hold paths and queries: nobody else on the machine may read what the server keeps."""

import os

from deeptrace.server.store.store import Store
from deeptrace.server.wal import Marks, WriteAheadLog, replace_file


def test_the_store_is_private_even_in_a_folder_that_was_open(tmp_path):
    folder = tmp_path / "data"
    (folder / "store").mkdir(parents=True)
    folder.chmod(0o755)
    (folder / "store").chmod(0o755)
    old = os.umask(0)
    try:
        store = Store(folder)
        store.close()
    finally:
        os.umask(old)
    assert (folder / "store").stat().st_mode & 0o777 == 0o700
    assert (folder / "lock").stat().st_mode & 0o777 == 0o600


def test_the_log_is_private_whatever_was_left_over(tmp_path):
    left_over = tmp_path / "ingest.new"
    left_over.write_bytes(b"")
    left_over.chmod(0o644)
    WriteAheadLog(tmp_path).write(1, Marks(), [b"batch"])
    replace_file(tmp_path / "server.json", b"{}")
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {"ingest.wal": 0o600, "server.json": 0o600}
