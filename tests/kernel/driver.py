"""The traced process of the kernel tests: does what it is told over its standard input and says what it knows.

One JSON object a line: {"do": name, ...} in, the result out. Standard library only.
"""

import ctypes
import json
import os
import random
import socket
import struct
import sys
import threading
import time

libc = ctypes.CDLL(None, use_errno=True)
MSG_WAITFORONE = 0x10000


class Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class Msghdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.POINTER(Iovec)),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class Mmsghdr(ctypes.Structure):
    _fields_ = (("header", Msghdr), ("length", ctypes.c_uint32))


def vector(buffers, pieces):
    """An array of mmsghdr over writable buffers, each split into `pieces` iovecs. Returns it and what keeps it alive."""
    messages, keep = (Mmsghdr * len(buffers))(), []
    for message, buffer in zip(messages, buffers, strict=True):
        size = -(-len(buffer) // pieces)
        iovecs = (Iovec * pieces)()
        base = ctypes.addressof(buffer)
        for i, iovec in enumerate(iovecs):
            iovec.base, iovec.length = base + i * size, max(0, min(size, len(buffer) - i * size))
        message.header.iov, message.header.iovlen = iovecs, pieces
        keep.append(iovecs)
    return messages, keep


def sendmmsg(sock, parts):
    buffers = [ctypes.create_string_buffer(part, len(part)) for part in parts]
    messages, _keep = vector(buffers, 2)
    return libc.sendmmsg(sock.fileno(), messages, len(parts), 0)


def recvmmsg(sock, sizes, flags=MSG_WAITFORONE):
    buffers = [ctypes.create_string_buffer(size) for size in sizes]
    messages, _keep = vector(buffers, 2)
    n = libc.recvmmsg(sock.fileno(), messages, len(sizes), flags, None)
    return [buffers[i].raw[: messages[i].length].hex() for i in range(n)]


def pieces_of(data, n=3):
    size = -(-len(data) // n)
    return [data[i : i + size] for i in range(0, len(data), size)]


def send(call, sock, data):
    if call == "write":
        return os.write(sock.fileno(), data)
    if call == "writev":
        return os.writev(sock.fileno(), pieces_of(data))
    if call == "sendto":
        return sock.send(data)
    if call == "sendmsg":
        return sock.sendmsg(pieces_of(data))
    return sendmmsg(sock, pieces_of(data))


def receive(call, sock, n):
    if call == "read":
        return os.read(sock.fileno(), n).hex()
    if call == "readv":
        buffers = [bytearray(max(1, n // 2)), bytearray(n)]
        got = os.readv(sock.fileno(), buffers)
        return b"".join(buffers)[:got].hex()
    if call == "recvfrom":
        return sock.recv(n).hex()
    if call == "recvmsg":
        buffers = [bytearray(max(1, n // 2)), bytearray(n)]
        got = sock.recvmsg_into(buffers)[0]
        return b"".join(buffers)[:got].hex()
    return "".join(recvmmsg(sock, [n]))


class Driver:
    """Sockets by name, and one method per thing to do."""

    def __init__(self):
        self.sockets = {}

    def connect(self, name, family, host):
        """A connection with both ends here: sockets name.c and name.s."""
        with socket.socket(getattr(socket, family)) as listener:
            listener.bind((host, 0))
            listener.listen(1)
            client = socket.socket(getattr(socket, family))
            client.connect(listener.getsockname()[:2])
            server = listener.accept()[0]
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sockets[name + ".c"], self.sockets[name + ".s"] = client, server
        return [client.getsockname()[:2], server.getsockname()[:2]]

    def transfer(self, out, into, egress, ingress, data):
        """Move bytes from one socket to another by the named calls, until all have arrived."""
        data = bytes.fromhex(data)
        sent = send(egress, self.sockets[out], data)
        got = ""
        while len(got) < 2 * len(data):
            got += receive(ingress, self.sockets[into], len(data))
        return [sent, got]

    def many(self, out, into, n, pause_s=0):
        """n writes and n reads of 8 bytes."""
        for i in range(n):
            if pause_s:
                time.sleep(pause_s)
            self.sockets[out].send(struct.pack("=Q", i))
            self.sockets[into].recv(8)
        return n

    def storm(self, out, into, n):
        """Two threads write random pieces, two read them."""

        def write(seed):
            chance = random.Random(seed)
            for _ in range(n):
                self.sockets[out].sendall(chance.randbytes(chance.randint(1, 200)))

        def read():
            while self.sockets[into].recv(150):
                pass

        readers = [threading.Thread(target=read) for _ in range(2)]
        writers = [threading.Thread(target=write, args=(seed,)) for seed in range(2)]
        for thread in (*readers, *writers):
            thread.start()
        for thread in writers:
            thread.join()
        self.sockets[out].shutdown(socket.SHUT_WR)
        for thread in readers:
            thread.join()
        return True

    def recv_flags(self, name, n, flags):
        return self.sockets[name].recv(n, flags).hex()

    def send(self, name, data):
        return self.sockets[name].send(bytes.fromhex(data))

    def sendfile(self, name, path, n):
        with open(path, "rb") as file:
            return os.sendfile(self.sockets[name].fileno(), file.fileno(), 0, n)

    def sendmmsg(self, name, parts):
        return sendmmsg(self.sockets[name], [bytes.fromhex(part) for part in parts])

    def recvmmsg(self, name, sizes):
        return recvmmsg(self.sockets[name], sizes)

    def udp(self, name, host):
        a, b = socket.socket(type=socket.SOCK_DGRAM), socket.socket(type=socket.SOCK_DGRAM)
        a.bind((host, 0))
        b.bind((host, 0))
        a.connect(b.getsockname())
        b.connect(a.getsockname())
        self.sockets[name + ".c"], self.sockets[name + ".s"] = a, b
        return [a.getsockname(), b.getsockname()]

    def unix(self, name, path=""):
        """Two ends of a unix stream: name.c and name.s, by connect and accept at a path, or as a pair. Returns their inodes."""
        if path:
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(path)
                listener.listen(1)
                client = socket.socket(socket.AF_UNIX)
                client.connect(path)
                server = listener.accept()[0]
        else:
            client, server = socket.socketpair()
        self.sockets[name + ".c"], self.sockets[name + ".s"] = client, server
        return True

    def duplicate(self, name, as_name, by="dup"):
        """Another descriptor of a socket, by dup, dup2 onto a new file, or dup3; returns its number."""
        fd = self.sockets[name].fileno()
        other = os.dup(fd) if by == "dup" else os.dup2(fd, os.open("/dev/null", os.O_RDONLY), inheritable=by == "dup2")
        self.sockets[as_name] = socket.socket(fileno=other)
        return other

    def pass_on(self, name, as_name):
        """Send a descriptor through a unix socket and take it out again as another one."""
        a, b = socket.socketpair()
        socket.send_fds(a, [b"x"], [self.sockets[name].fileno()])
        fd = socket.recv_fds(b, 1, 1)[1][0]
        a.close()
        b.close()
        self.sockets[as_name] = socket.socket(fileno=fd)
        return fd

    def descriptor(self, name):
        return self.sockets[name].fileno()

    def no_sockets(self, path):
        """Move bytes through everything that is not an internet socket."""
        with open(path, "wb+") as file:
            os.write(file.fileno(), b"file")
            os.lseek(file.fileno(), 0, 0)
            os.read(file.fileno(), 10)
        r, w = os.pipe()
        os.write(w, b"pipe")
        os.read(r, 10)
        event = libc.eventfd(0, 0)
        os.write(event, struct.pack("=Q", 1))
        os.read(event, 8)
        for fd in (r, w, event):
            os.close(fd)
        a, b = socket.socketpair()
        a.send(b"unix")
        b.recv(10)
        a.close()
        b.close()
        return 8

    def close(self, name, reset=False):
        sock = self.sockets.pop(name)
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
        sock.close()
        return True

    def refused(self):
        """Connect to a port where nobody listens."""
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        with socket.socket() as sock:
            return [sock.connect_ex(("127.0.0.1", port)), port]

    def connect_without_waiting(self, name):
        """A non-blocking connect, asked for again when it is done."""
        listener = socket.create_server(("127.0.0.1", 0))
        client = socket.socket()
        client.setblocking(False)
        first = client.connect_ex(listener.getsockname())
        server = listener.accept()[0]
        again = client.connect_ex(listener.getsockname())
        client.setblocking(True)
        listener.close()
        self.sockets[name + ".c"], self.sockets[name + ".s"] = client, server
        return [first, again]

    def last_words(self, name, data):
        """Send, then reset at once; the other end reads what had arrived before."""
        self.sockets[name + ".s"].send(bytes.fromhex(data))
        self.close(name + ".s", reset=True)
        return self.sockets[name + ".c"].recv(100).hex()

    def fork_and(self, request):
        """Let a child do something; returns its pid and result."""
        r, w = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(w, json.dumps(self.do(request)).encode())
            os._exit(7)
        result = json.loads(os.read(r, 65536))
        os.close(r)
        os.close(w)
        os.waitpid(pid, 0)
        return [pid, result]

    def fork_on(self):
        """A child that lives on without doing anything, until this process ends; returns its pid."""
        pid = os.fork()
        if pid == 0:
            libc.prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG: SIGKILL
            threading.Event().wait()
        return pid

    def spawn(self, argv):
        pid = os.posix_spawn(argv[0], argv, {})
        return [pid, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]

    def fork_and_execute_in_a_thread(self, name):
        """A child whose second thread sends and executes another program; returns the child's pid and the thread's number."""
        r, w = os.pipe()
        pid = os.fork()
        if pid == 0:

            def execute():
                self.sockets[name].send(b"thread")
                os.write(w, str(threading.get_native_id()).encode())
                os.execv("/bin/true", ["true"])

            threading.Thread(target=execute).start()
            threading.Event().wait(10)
            os._exit(1)
        os.close(w)
        tid = int(os.read(r, 64))
        os.close(r)
        os.waitpid(pid, 0)
        return [pid, tid]

    def rename(self, name):
        """Take another name, as prctl(PR_SET_NAME) in the first thread does."""
        return libc.prctl(15, name.encode(), 0, 0, 0)

    def become(self, path):
        """Execute another program, which is a driver without sockets. It answers the next order."""
        os.execv(path, [path, "-I", __file__])

    def block(self, name, call="recvfrom"):
        """Let a thread wait for bytes that come later."""
        self.blocked = threading.Thread(target=receive, args=(call, self.sockets[name], 64))
        self.blocked.start()
        return self.blocked.native_id

    def replace(self, name, by):
        """Let the descriptor of one socket become another's."""
        os.dup2(self.sockets[by].fileno(), self.sockets[name].fileno())
        return True

    def join(self):
        self.blocked.join()
        return True

    def mark(self):
        return True

    def do(self, request):
        return getattr(self, request.pop("do"))(**request)


def main():
    driver = Driver()
    for line in sys.stdin:
        print(json.dumps(driver.do(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
