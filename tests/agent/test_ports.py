"""Who listens where, on this machine's real /proc."""

import os
import socket

from deeptrace.agent.ports import listening_ports
from deeptrace.agent.procs import ProcFiles


def test_listening_ports_of_both_families_are_found_and_connections_are_not():
    with socket.create_server(("127.0.0.1", 0)) as four, socket.socket(socket.AF_INET6) as six:
        six.bind(("::1", 0))
        six.listen()
        wanted = {four.getsockname()[1], six.getsockname()[1]}
        with socket.create_connection(four.getsockname()) as client:
            found = listening_ports(ProcFiles(), [os.getpid(), 2**22 + 1])
            assert wanted <= found[os.getpid()]
            assert client.getsockname()[1] not in found[os.getpid()]
    assert not wanted & listening_ports(ProcFiles(), [os.getpid()]).get(os.getpid(), set())
