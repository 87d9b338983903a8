RECEIVING: dict[int, str]
EMPTY: bytes

def thread_entry(
    *,
    tid: int,
    tgid: int,
    syscall: int,
    fd: int,
    inode: int,
    buffer: int,
    count: int,
    msg_flags: int,
    enter_ns: int,
) -> bytes: ...
