"""What the probes are told of a thread that waits for bytes since before they were there. Knows the calls that wait, by the numbers
of the machine's C headers; makes entries of map THREADS, and no others."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

cdef extern from "<sys/syscall.h>" nogil:
    enum:
        SYS_read
        SYS_readv
        SYS_recvfrom
        SYS_recvmsg

cdef extern from "dt_records.h" nogil:
    enum:
        DT_CALL_BLOCKED

    ctypedef struct dt_inflight "struct dt_inflight":
        uint64_t enter_ns
        uint64_t socket
        uint64_t buffer
        uint64_t count
        uint64_t peer
        uint32_t call_flags
        uint8_t syscall
        uint16_t flags

    ctypedef struct dt_thread "struct dt_thread":
        uint32_t tid
        uint32_t tgid
        dt_inflight call

# Not recvmmsg: its hook is as long as the verifier allows, and it waits for datagrams, which no order holds together.
RECEIVING = {SYS_read: "read", SYS_readv: "readv", SYS_recvfrom: "recvfrom", SYS_recvmsg: "recvmsg"}
EMPTY = b"\0" * sizeof(dt_thread)


def thread_entry(*, uint32_t tid, uint32_t tgid, uint8_t syscall, uint32_t fd, uint64_t inode, uint64_t buffer, uint64_t count,
                 uint32_t msg_flags, uint64_t enter_ns) -> bytes:
    """A dt_thread whose call was entered before the probes. syscall: enum dt_syscall; inode: of the socket behind fd; enter_ns: 0
    makes an entry without a call."""
    cdef dt_thread thread
    memset(&thread, 0, sizeof(thread))
    thread.tid = tid
    thread.tgid = tgid
    thread.call.enter_ns = enter_ns
    thread.call.socket = inode
    thread.call.buffer = buffer
    thread.call.count = count
    thread.call.peer = fd
    thread.call.call_flags = msg_flags
    thread.call.syscall = syscall
    thread.call.flags = DT_CALL_BLOCKED
    return (<char *> &thread)[: sizeof(thread)]
