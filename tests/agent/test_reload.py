"""`deeptrace agent --config FILE` on this kernel: SIGHUP makes it follow the file again, without a restart."""

import http.client
import json
import signal
import subprocess

import pytest
from real import DEEPTRACE, get, nginx, programs_of, wait_until

pytestmark = pytest.mark.kernel


class Running:
    """A server and an agent that reads its settings from a file."""

    def __init__(self, folder):
        self.folder = folder
        self.config = folder / "deeptrace.toml"
        self.errors = folder / "agent.stderr"
        self.children = []

    def start(self, settings):
        self.config.write_text(settings)
        places = ["--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data", str(self.folder / "data")]
        self.server = self.child("server", *places)
        with self.errors.open("wb") as sink:
            self.agent = self.child("-v", "agent", "--server", self.server[1]["grpc"], "--config", str(self.config), stderr=sink)
        return self

    def child(self, *arguments, stderr=None):
        process = subprocess.Popen([*DEEPTRACE, *arguments, "--json"], stdout=subprocess.PIPE, stderr=stderr)
        self.children.insert(0, process)
        line = process.stdout.readline()
        assert line, self.errors.read_text()
        return process, json.loads(line)

    def reload(self, settings, said):
        """Write the file, send SIGHUP, wait for a line of the log."""
        before = self.errors.read_text().count(said)
        self.config.write_text(settings)
        self.agent[0].send_signal(signal.SIGHUP)
        assert wait_until(lambda: self.errors.read_text().count(said) > before), self.errors.read_text()

    def paths(self, port):
        """Requests that the server of that port was seen to answer; other tests run servers of the same name."""
        host, api_port = self.server[1]["http"].split(":")
        connection = http.client.HTTPConnection(host, int(api_port), timeout=20)
        connection.request("GET", "/api/v1/spans?since=3600&limit=10000")
        found = json.loads(connection.getresponse().read())
        connection.close()
        spans = found["spans"] if isinstance(found, dict) else found
        return {span["attributes"].get("url.path") for span in spans if span["local_port"] == port}

    def hears(self, port, path):
        assert get(port, path) == 200
        return bool(wait_until(lambda: path in self.paths(port), 30))

    def stop(self):
        for process in self.children:
            process.terminate()
            process.wait(40)


@pytest.fixture
def running(tmp_path):
    made = Running(tmp_path)
    yield made
    made.stop()


def test_filters_limits_and_the_log_level_follow_the_file(tmp_path, running):
    with nginx(tmp_path) as (_pid, port):
        running.start('[capture]\ncomm = ["nobody"]\n')
        programs = programs_of(running.agent[0].pid)
        assert get(port, "/before") == 200
        running.reload('[capture]\ncomm = ["nginx"]\n', "the settings were read again")
        assert running.hears(port, "/allowed")
        running.reload('[capture]\ncomm = ["a name of more than 15 bytes"]\n', "the settings stay as they were")
        running.reload("[capture]\nno_such_key = 1\n", "the settings stay as they were")
        running.reload("not toml", "the settings stay as they were")
        assert running.hears(port, "/after-mistakes")
        running.reload(
            f'[capture]\ncomm = ["nginx"]\ndeny_port = [{port}]\nring_bytes = 1048576\n[ship]\nbatch_ms = 1\n',
            "settings=capture.ring_bytes ship.batch_ms",
        )
        assert get(port, "/denied") == 200
        running.reload('[capture]\ncomm = ["nginx"]\npayload_bytes = 64\n[agent]\nlog_level = "debug"\n', "read again")
        assert running.hears(port, "/again")
        assert {"/before", "/denied"}.isdisjoint(running.paths(port))
        assert programs_of(running.agent[0].pid) == programs
    assert running.agent[0].poll() is None


def test_a_hangup_without_a_file_ends_the_agent(running):
    process, ready = running.child("agent", "--server", "127.0.0.1:1", "--comm", "nobody")
    assert ready["event"] == "ready"
    process.send_signal(signal.SIGHUP)
    assert process.wait(40) == 0


def test_filters_that_cannot_be_are_said_before_anything_is_loaded(running):
    for options, words in (
        (["--comm", "a name of more than 15 bytes"], "28 bytes"),
        (["--port", "70000"], "no port 70000"),
        (["--deny-exe", "/no/such/file"], "no executable /no/such/file"),
        (["--cgroup", "no-such-container"], "no-such-container"),
    ):
        ended = subprocess.run([*DEEPTRACE, "agent", *options], capture_output=True, text=True, timeout=60, check=False)
        assert ended.returncode == 2
        assert words in ended.stderr
        assert ended.stderr.count("\n") == 1
    assert running.children == []
