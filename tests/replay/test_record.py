"""Recording real traffic: what the probes see is in the file, only its owner may read it, and replay makes linked spans of it."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from deeptrace.agent.replay import replay_all
from deeptrace.config import Agent
from deeptrace.model import raw_spans, span_json
from deeptrace.server.assemble import link_all
from deeptrace.wire.capture import CaptureReader

N_REQUESTS = 23  # a prime number: no count of anything else is it by chance
SECRET = "hunter2-S3CR3T"
READY_TIMEOUT_S = 60

TRAFFIC = f"""
import http.client, http.server, sys, threading

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print("ready", flush=True)
sys.stdin.readline()
client = http.client.HTTPConnection("127.0.0.1", server.server_port)
for i in range({N_REQUESTS}):
    client.request("POST", f"/order/{{i}}?token={SECRET}", b"{SECRET}", {{"Authorization": "{SECRET}"}})
    client.getresponse().read()
client.close()
print("done", flush=True)
sys.stdin.readline()
"""

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="recording needs root"),
]


@pytest.fixture
def traffic():
    """A process that serves and asks itself, once it is told to by a line on its stdin."""
    with subprocess.Popen(
        [sys.executable, "-c", TRAFFIC], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as child:
        assert child.stdout.readline() == "ready\n"
        yield child
        child.kill()


def record(child: subprocess.Popen, path: pathlib.Path, *options: str) -> tuple[dict, str]:
    """Record one run of the traffic. Returns the last line of the recorder and what it said on stderr."""
    command = [sys.executable, "-m", "deeptrace.cli", "record", "-o", str(path), "--pid", str(child.pid), "--json", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as recorder:
        try:
            line = recorder.stdout.readline()
            assert line, recorder.stderr.read()
            ready = json.loads(line)
            assert ready["event"] == "ready"
            child.stdin.write("\n")
            assert child.stdout.readline() == "done\n"
            time.sleep(0.1)  # the last records are final after 2 ms
            recorder.send_signal(signal.SIGINT)
            out, err = recorder.communicate(timeout=30)
        finally:
            recorder.kill()
    assert recorder.returncode == 0, err
    return json.loads(out.splitlines()[-1]), err


def spans_of(path: pathlib.Path) -> list[dict]:
    _, batches, damage = replay_all(path, Agent())
    assert damage is None
    links = link_all(batches)
    return [span_json(raw, links[raw.span_id]) for batch in batches for raw in raw_spans(batch)]


def check_spans(spans: list[dict], pid: int) -> None:
    servers = [s for s in spans if s["kind"] == "SERVER"]
    clients = {s["span_id"]: s for s in spans if s["kind"] == "CLIENT"}
    assert len(servers) == len(clients) == N_REQUESTS
    assert {s["attributes"]["url.path"] for s in servers} == {f"/order/{i}" for i in range(N_REQUESTS)}
    for span in servers:
        parent = clients[span["parent_span_id"]]
        assert span["link_method"] == "tcp_seq"
        assert span["attributes"]["url.path"] == parent["attributes"]["url.path"]
        assert span["trace_id"] == parent["trace_id"]
        assert span["pid"] == parent["pid"] == pid
        assert span["attributes"]["http.response.status_code"] == 200
        assert span["comm"].startswith("python")
        assert abs(span["start_ns"] - time.time_ns()) < 300e9


def test_recorded_traffic_replays_to_linked_spans_of_its_process(traffic, tmp_path):
    path = tmp_path / "a.dtcap"
    path.write_text("there before")
    path.chmod(0o644)
    done, said = record(traffic, path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert "raw payload" in said
    assert "0600" in said
    assert (done["event"], done["lost"]) == ("done", 0)
    with CaptureReader(path) as reader:
        payload = b"".join(frame.payload.tobytes() for frame in reader.frames())
        assert reader.is_complete
        assert reader.info.host
        assert reader.info.boot_id
        assert not reader.info.redacted
    assert payload.count(f"Authorization: {SECRET}".encode()) == 2 * N_REQUESTS  # at both ends
    check_spans(spans_of(path), traffic.pid)


def test_a_redacted_recording_holds_no_secret_and_replays_to_the_same_spans(traffic, tmp_path):
    path = tmp_path / "a.dtcap"
    done, said = record(traffic, path, "--redact")
    assert "masked" in said
    assert done["redacted"]
    with CaptureReader(path) as reader:
        payload = b"".join(frame.payload.tobytes() for frame in reader.frames())
        assert reader.info.redacted
    assert SECRET.encode() not in payload
    assert SECRET.encode() not in path.read_bytes()
    assert b"POST /order/0?token=xxxxxxxxxxxxxx HTTP/1.1" in payload
    check_spans(spans_of(path), traffic.pid)


def test_a_recording_ends_after_its_seconds(tmp_path, capfd):
    from deeptrace.cli import _children

    child = _children.start_verb(["record", "-o", str(tmp_path / "a.dtcap"), "--pid", str(os.getpid()), "--seconds", "0.2"])
    out, _ = child.communicate(timeout=READY_TIMEOUT_S)
    assert child.returncode == 0, capfd.readouterr().err
    assert b"deeptrace replay" in out
    with CaptureReader(tmp_path / "a.dtcap") as reader:
        list(reader.frames())
        assert reader.is_complete


def test_a_process_that_is_not_there_and_a_file_that_cannot_be_written_are_told_in_one_line(tmp_path):
    for options, said in ((["--pid", "4194303"], "there is no process"), ([], "No such file")):
        path = tmp_path / ("a.dtcap" if options else "none/a.dtcap")
        command = [sys.executable, "-m", "deeptrace.cli", "record", "-o", str(path), *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=READY_TIMEOUT_S, check=False)
        assert done.returncode in (1, 2)
        assert said in done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
