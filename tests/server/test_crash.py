"""A real server process, killed while it stores: what was acknowledged is there once, what was not can be sent again."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

import grpc
from shipper import Shipper
from span_factory import T0, load

from deeptrace.cli._client import Client

N_BATCHES = 30
TRACES = 300  # six spans each


def run(data: pathlib.Path, *options: str) -> "tuple[subprocess.Popen[str], dict[str, Any]]":
    command = [sys.executable, "-m", "deeptrace.cli", "server", "--data", str(data), "--json"]
    command += ["--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.stderr.read() if process.stderr else ""
    return process, json.loads(line)


def end(process: "subprocess.Popen[str]", number: int = signal.SIGTERM) -> int:
    process.send_signal(number)
    process.communicate(timeout=60)
    return process.returncode


def test_killed_servers_lose_nothing_and_double_nothing(tmp_path: pathlib.Path) -> None:
    batches = [load(TRACES, seed=i, first=i * TRACES, start_ns=T0 + i * 10**8) for i in range(N_BATCHES)]
    acked, rounds = 0, 0
    while acked < N_BATCHES:
        rounds += 1
        assert rounds < 10
        process, ready = run(tmp_path)
        try:
            shipper = Shipper(ready["grpc"])
            assert shipper.welcome.last_sequence >= acked
            acked = int(shipper.welcome.last_sequence)
            for i in range(acked, N_BATCHES):
                shipper.send(batches[i], i + 1)
            while acked < N_BATCHES:
                acked = max(acked, shipper.acks(1)[0].sequence)
                if rounds <= 3 and acked >= rounds * 4:
                    time.sleep(0.01 * rounds)  # somewhere within the next group
                    process.kill()
            shipper.close()
        except (grpc.RpcError, StopIteration):
            pass
        finally:
            process.kill()
            process.communicate(timeout=60)
    assert rounds > 1
    process, ready = run(tmp_path)
    try:
        client = Client(ready["http"])
        assert client.get("doctor")["server"]["store"]["spans"]["rows"] == N_BATCHES * TRACES * 6
        services = client.get("services", {"since": T0 - 10**9})["services"]
        assert {row["requests"] for row in services} == {N_BATCHES * TRACES}
    finally:
        assert end(process, signal.SIGINT) == 0


def test_links_of_a_killed_server_are_made_by_the_next_one(tmp_path: pathlib.Path) -> None:
    process, ready = run(tmp_path, "--settle-s", "2")
    shipper = Shipper(ready["grpc"])
    shipper.send(load(50, start_ns=T0), 1)
    shipper.acks(1)
    process.kill()
    process.communicate(timeout=60)
    process, ready = run(tmp_path, "--settle-s", "2")
    try:
        client = Client(ready["http"])
        deadline = time.monotonic() + 20
        # nginx is an event loop with too few requests to learn from: each request makes a trace before it and one behind it
        while sorted(t["n_spans"] for t in client.get("traces", {"since": T0, "limit": 200})["traces"]) != [2] * 50 + [4] * 50:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        assert end(process) == 0
    assert not os.path.exists(tmp_path / "server.json")


def test_a_taken_port_is_one_sentence_and_a_non_zero_exit(tmp_path: pathlib.Path) -> None:
    process, ready = run(tmp_path / "a")
    try:
        for option, address in (("--http", ready["http"]), ("--grpc", ready["grpc"])):
            command = [sys.executable, "-m", "deeptrace.cli", "server", "--data", str(tmp_path / "b"), option, address]
            other = "--grpc" if option == "--http" else "--http"
            told = subprocess.run([*command, other, "127.0.0.1:0"], capture_output=True, text=True, timeout=60, check=False)
            assert told.returncode == 1, told
            assert len(told.stderr.splitlines()) == 1, told.stderr
            assert address in told.stderr
    finally:
        assert end(process) == 0
