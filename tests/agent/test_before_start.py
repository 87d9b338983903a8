"""Connections that are open, and reads that wait, before the agent starts: the first request after its start is a whole span at
both ends, with the right process, kind and ports."""

import contextlib
import pathlib
import subprocess

import pytest
from real import Up, wait_until

pytestmark = pytest.mark.kernel

PYTHON = "/usr/bin/python3"
SERVER = """
import http.server

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""
CLIENT = """
import http.client, sys

connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
for line in sys.stdin:
    connection.request("GET", line.strip())
    connection.getresponse().read()
    print(connection.sock.getsockname()[1], flush=True)
"""


@contextlib.contextmanager
def program(text, *arguments):
    process = subprocess.Popen(
        [PYTHON, "-c", text, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ask(client, path):
    """One request over its one connection; returns the connection's port at the client."""
    client.stdin.write(path + "\n")
    return int(client.stdout.readline())


def started_ns(pid):
    """When a process began, in Unix ns, as /proc says."""
    stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    boot = next(int(line.split()[1]) for line in pathlib.Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
    return boot * 10**9 + int(stat[stat.rindex(")") + 2 :].split()[19]) * 10**7


def test_the_first_request_on_an_old_connection_is_a_whole_span_at_both_ends(tmp_path):
    with program(SERVER) as server, program(CLIENT, port := server.stdout.readline().strip()) as client:
        ask(client, "/old")  # from here on a thread of the server waits for the next one
        up = Up(tmp_path / "data", "--pid", str(server.pid), "--pid", str(client.pid))
        try:
            client_port = ask(client, "/first")
            ask(client, "/second")
            found = wait_until(lambda: [s for s in up.spans() if s["attributes"].get("url.path")][3:] and up.spans())
            starts = {server.pid: started_ns(server.pid), client.pid: started_ns(client.pid)}
        finally:
            assert up.stop() == 0
    spans = {(s["attributes"]["url.path"], s["kind"]): s for s in found}
    assert set(spans) == {(path, kind) for path in ("/first", "/second") for kind in ("SERVER", "CLIENT")}
    for path in ("/first", "/second"):
        served, called = spans[path, "SERVER"], spans[path, "CLIENT"]
        assert (served["local_port"], served["peer_port"]) == (int(port), client_port)
        assert (called["local_port"], called["peer_port"]) == (client_port, int(port))
        assert (served["pid"], called["pid"]) == (server.pid, client.pid)
        assert served["process_start_ns"] == starts[server.pid]
        assert called["process_start_ns"] == starts[client.pid]
        assert "error.type" not in served["attributes"]
