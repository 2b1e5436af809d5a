"""Tables of calls on descriptors: every call by how the descriptor was opened; maps and locks."""

import ctypes
import fcntl
import mmap
import os
import resource
import signal
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from posix_cases.runner import CASES, Case, attempt, case, differs, make, opened

from tmemfs.linux.syscalls import fallocate

OPENED = {
    "for reading": os.O_RDONLY,
    "for writing": os.O_WRONLY,
    "for both": os.O_RDWR,
    "to append": os.O_RDWR | os.O_APPEND,
    "as a path": os.O_PATH,
}


def _listed(fd: int) -> list[str]:
    return sorted(os.listdir(fd))


def _mapped(fd: int, flags: int, prot: int) -> str:
    with mmap.mmap(fd, 5, flags=flags, prot=prot):
        return "mapped"


def _lock(fd: int, kind: int) -> Any:
    return fcntl.fcntl(fd, fcntl.F_SETLK, struct.pack("hhqqi", kind, 0, 0, 0, 0)) and "locked"


def _and_back(fd: int) -> None:
    here = os.open(".", os.O_RDONLY)
    try:
        os.fchdir(fd)
        os.fchdir(here)
    finally:
        os.close(here)


def _spliced(fd: int) -> bytes:
    reading, writing = os.pipe()
    try:
        os.splice(fd, writing, 100, offset_src=1)
        return os.read(reading, 100)
    finally:
        os.close(reading)
        os.close(writing)


READ, WRITE = mmap.PROT_READ, mmap.PROT_WRITE
CALLS: dict[str, Callable[[int], Any]] = {
    "read": lambda fd: os.read(fd, 10),
    "pread": lambda fd: os.pread(fd, 10, 2),
    "pread_negative": lambda fd: os.pread(fd, 10, -2),
    "readv": lambda fd: os.readv(fd, [bytearray(3), bytearray(30)]),
    "write": lambda fd: os.write(fd, b"X"),
    "write_nothing": lambda fd: os.write(fd, b""),
    "pwrite": lambda fd: os.pwrite(fd, b"Y", 3),
    "pwrite_negative": lambda fd: os.pwrite(fd, b"Y", -3),
    "pwritev_durably": lambda fd: os.pwritev(fd, [b"a", b"b"], 1, os.RWF_DSYNC),
    "pwritev_to_append": lambda fd: os.pwritev(fd, [b"a", b"b"], 1, os.RWF_APPEND),
    "preadv_with_unknown_flags": lambda fd: os.preadv(fd, [bytearray(3)], 0, 1 << 20),
    "lseek": lambda fd: os.lseek(fd, 4, os.SEEK_SET),
    "lseek_from_the_end": lambda fd: os.lseek(fd, 4, os.SEEK_END),
    "lseek_before_the_start": lambda fd: os.lseek(fd, -1, os.SEEK_SET),
    "lseek_nowhere": lambda fd: os.lseek(fd, 0, 99),
    "lseek_to_data_at_the_end": lambda fd: os.lseek(fd, 7, os.SEEK_DATA),
    "lseek_to_a_hole_at_the_end": lambda fd: os.lseek(fd, 7, os.SEEK_HOLE),
    "fstat": lambda fd: oct(os.fstat(fd).st_mode),
    "fstatvfs": lambda fd: os.fstatvfs(fd).f_namemax,
    "ftruncate": lambda fd: os.ftruncate(fd, 3),
    "ftruncate_negative": lambda fd: os.ftruncate(fd, -3),
    "fchmod": lambda fd: os.fchmod(fd, 0o640),
    "fchown": lambda fd: os.fchown(fd, 1, 2),
    "futimens": lambda fd: os.utime(fd, ns=(1, 2)),
    "fsync": os.fsync,
    "fdatasync": os.fdatasync,
    "fchdir": _and_back,
    "listdir": _listed,
    "fgetxattr": lambda fd: os.getxattr(fd, "user.x"),
    "fsetxattr": lambda fd: os.setxattr(fd, "user.x", b"1"),
    "flistxattr": os.listxattr,
    "fremovexattr": lambda fd: os.removexattr(fd, "user.x"),
    "fallocate": lambda fd: fallocate(fd, 0, 0, 100),
    "fallocate_of_nothing": lambda fd: fallocate(fd, 0, 0, 0),
    "fallocate_negative": lambda fd: fallocate(fd, 0, -1, 1),
    "fallocate_beyond_everything": lambda fd: fallocate(fd, 0, 1 << 62, 1 << 62),
    "posix_fallocate": lambda fd: os.posix_fallocate(fd, 0, 50),
    "fadvise": lambda fd: os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_WILLNEED),
    "fadvise_unknown": lambda fd: os.posix_fadvise(fd, 0, 0, 99),
    "flock": lambda fd: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB),
    "lock_to_read": lambda fd: _lock(fd, fcntl.F_RDLCK),
    "lock_to_write": lambda fd: _lock(fd, fcntl.F_WRLCK),
    "lock_nonsense": lambda fd: _lock(fd, 77),
    "set_flags": lambda fd: fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND),
    "duplicate": lambda fd: os.close(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100)),
    "how_much_to_read": lambda fd: fcntl.ioctl(fd, 0x541B, bytes(4)),
    "ask_for_a_terminal": os.isatty,
    "map_to_read": lambda fd: _mapped(fd, mmap.MAP_SHARED, READ),
    "map_to_write": lambda fd: _mapped(fd, mmap.MAP_SHARED, READ | WRITE),
    "map_to_write_privately": lambda fd: _mapped(fd, mmap.MAP_PRIVATE, READ | WRITE),
    "copy_from": lambda fd: _copied(fd, into=False),
    "copy_into": lambda fd: _copied(fd, into=True),
    "splice_out": _spliced,
    "open_again": lambda fd: os.close(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)),
    "open_below": lambda fd: os.close(os.open("x", os.O_RDONLY, dir_fd=fd)),
    "execute": lambda fd: os.execve(fd, ["x"], {}),
}


# Where the end of a directory is, filesystems disagree on.
NOT_IN_DIRECTORIES = {CALLS["lseek_from_the_end"], CALLS["lseek_to_a_hole_at_the_end"]}


def _copied(fd: int, *, into: bool) -> int:
    """Copy some bytes between it and a file beside the one it is open on."""
    beside = os.path.join(os.path.dirname(os.readlink(f"/proc/self/fd/{fd}")), "beside")

    def use(other: int) -> int:
        return os.copy_file_range(*((other, fd) if into else (fd, other)), 5)

    return opened(make(Path(beside), b"beside"), os.O_RDWR, use)


def on_every_descriptor(call: Callable[[int], Any]) -> Callable[[Path], Any]:
    """The case of one call: on a file by all its ways of being opened, a directory, a FIFO."""

    def run(d: Path) -> Any:
        seen = {}
        for how, flags in OPENED.items():
            make(d / how, b"content")
            seen[how] = opened(d / how, flags, lambda fd: (attempt(call, fd), _place(fd)))
        (d / "sub").mkdir()
        if call not in NOT_IN_DIRECTORIES:
            seen["directory"] = opened(d / "sub", os.O_RDONLY, lambda fd: attempt(call, fd))
        os.mkfifo(d / "fifo")
        # With both ends in it, nothing waits for somebody else but a read; so there is a byte.
        seen["fifo"] = opened(
            d / "fifo",
            os.O_RDWR | os.O_NONBLOCK,
            lambda fd: (os.write(fd, b"c"), attempt(call, fd)),
        )
        fd = os.open(d / "sub", os.O_RDONLY)
        os.close(fd)
        seen["closed"] = attempt(call, fd)
        return seen, {name: (d / name).read_bytes() for name in OPENED}

    return run


def _place(fd: int) -> Any:
    """Where in the file the descriptor is now."""
    return attempt(os.lseek, fd, 0, os.SEEK_CUR)


CASES += [Case(f"{name}_on_every_descriptor", on_every_descriptor(c)) for name, c in CALLS.items()]


# -- locks ------------------------------------------------------------------------------------

F_OFD_SETLK, F_OFD_GETLK = 37, 36
KINDS = {"read": fcntl.F_RDLCK, "write": fcntl.F_WRLCK, "unlock": fcntl.F_UNLCK}


def _set(fd: int, kind: str, start: int, length: int, command: int = fcntl.F_SETLK) -> Any:
    packed = struct.pack("hhqqi4x", KINDS[kind], os.SEEK_SET, start, length, 0)
    return attempt(fcntl.fcntl, fd, command, packed) == "EAGAIN" and "held"


def _get(fd: int, kind: str, start: int, length: int, command: int = fcntl.F_GETLK) -> Any:
    packed = struct.pack("hhqqi4x", KINDS[kind], os.SEEK_SET, start, length, 0)
    found, _, at, size, pid = struct.unpack("hhqqi4x", fcntl.fcntl(fd, command, packed))
    return found, at, size, pid and (pid > 0 or pid)


def _elsewhere(call: Callable[[], Any]) -> Any:
    """What a call sees in another process, to which record locks of this one are somebody's."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writing, repr(call()).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(pid, 0)
    return said


@case
def record_locks_by_kind_and_range(d: Path):
    make(d / "f", bytes(100))
    seen = []
    for held in ("read", "write", "unlock"):
        for asked in ("read", "write"):
            for start, length in ((0, 10), (5, 10), (10, 5), (15, 0), (0, 0)):

                def use(fd: int, held=held, asked=asked, start=start, length=length) -> Any:
                    _set(fd, held, 5, 10)

                    def other() -> Any:
                        return opened(
                            d / "f",
                            os.O_RDWR,
                            lambda fd: (
                                _set(fd, asked, start, length),
                                _get(fd, asked, start, length)[:3],
                            ),
                        )

                    return _elsewhere(other)

                seen.append((held, asked, start, length, opened(d / "f", os.O_RDWR, use)))
    return seen


@case
def record_locks_of_one_process_split_and_join(d: Path):
    make(d / "f", bytes(100))

    def use(fd: int) -> Any:
        seen = []
        for kind, start, length in (
            ("write", 0, 50),
            ("unlock", 10, 10),
            ("read", 30, 5),
            ("write", 10, 10),
            ("read", 0, 0),
        ):
            _set(fd, kind, start, length)
            seen.append(
                _elsewhere(
                    lambda: opened(
                        d / "f",
                        os.O_RDWR,
                        lambda fd: [_get(fd, "write", at, 1)[0] for at in (0, 9, 10, 19, 32, 60)],
                    )
                )
            )
        return seen

    return opened(d / "f", os.O_RDWR, use)


@case
def record_locks_go_with_any_close(d: Path):
    make(d / "f", bytes(100))

    def use(fd: int) -> Any:
        _set(fd, "write", 0, 10)
        opened(d / "f", os.O_RDONLY, lambda other: None)
        return _elsewhere(lambda: opened(d / "f", os.O_RDWR, lambda fd: _set(fd, "write", 0, 10)))

    return opened(d / "f", os.O_RDWR, use)


@case
def locks_of_an_open_file(d: Path):
    make(d / "f", bytes(100))

    def use(one: int) -> Any:
        def both(two: int) -> Any:
            return (
                _set(one, "write", 0, 10, F_OFD_SETLK),
                _set(two, "read", 5, 10, F_OFD_SETLK),
                _set(two, "read", 10, 10, F_OFD_SETLK),
                _get(two, "write", 0, 10, F_OFD_GETLK),
                _set(one, "unlock", 0, 10, F_OFD_SETLK),
                _set(two, "write", 0, 10, F_OFD_SETLK),
            )

        return opened(d / "f", os.O_RDWR, both)

    return opened(d / "f", os.O_RDWR, use)


@case
def flock_by_kind(d: Path):
    make(d / "f")
    seen = []
    for held in (fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_UN):
        for asked in (fcntl.LOCK_SH, fcntl.LOCK_EX):
            with open(d / "f") as one, open(d / "f") as two, open(d / "f") as three:
                fcntl.flock(one, held)
                first = attempt(fcntl.flock, two, asked | fcntl.LOCK_NB)
                # Upgraded, downgraded, and given up by closing.
                second = attempt(fcntl.flock, one, asked | fcntl.LOCK_NB)
                one.close()
                seen.append((first, second, attempt(fcntl.flock, three, asked | fcntl.LOCK_NB)))
    return seen


@case
def flock_is_shared_with_a_child(d: Path):
    make(d / "f")
    with open(d / "f") as one:
        fcntl.flock(one, fcntl.LOCK_EX)
        mine = _elsewhere(lambda: attempt(fcntl.flock, one, fcntl.LOCK_EX | fcntl.LOCK_NB))

        def another() -> Any:
            with open(d / "f") as two:
                return attempt(fcntl.flock, two, fcntl.LOCK_EX | fcntl.LOCK_NB)

        return mine, _elsewhere(another)


@case
def flock_and_record_locks_do_not_meet(d: Path):
    make(d / "f", bytes(10))
    with open(d / "f", "r+b") as one:
        fcntl.flock(one, fcntl.LOCK_EX)
        return _elsewhere(lambda: opened(d / "f", os.O_RDWR, lambda fd: _set(fd, "write", 0, 0)))


# -- limits and signals -----------------------------------------------------------------------


@case
def file_size_limit(d: Path):
    make(d / "f", bytes(100))

    def limited() -> Any:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))
        return opened(
            d / "f",
            os.O_RDWR,
            lambda fd: (
                attempt(os.pwrite, fd, bytes(200), 8100),
                attempt(os.pwrite, fd, b"x", 8192),
                attempt(os.ftruncate, fd, 8192),
                attempt(os.ftruncate, fd, 8193),
                attempt(fallocate, fd, 0, 0, 9000),
                os.fstat(fd).st_size,
            ),
        )

    return _elsewhere(limited)


@case
def mapping_beyond_the_end_is_a_bus_error(d: Path):
    make(d / "f", b"short")

    def touch() -> None:
        view = mmap.mmap(os.open(d / "f", os.O_RDWR), 0)
        os.truncate(d / "f", 0)
        view[0]

    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGBUS, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        touch()
        os._exit(0)
    return os.waitpid(pid, 0)[1] & 127


# -- watching ---------------------------------------------------------------------------------


@case
def changes_are_told_to_who_watches(d: Path):
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(os.O_NONBLOCK)
    try:
        libc.inotify_add_watch(fd, os.fsencode(d), 0xFFF)
        make(d / "f", b"x")
        os.rename(d / "f", d / "g")
        os.chmod(d / "g", 0o600)
        os.link(d / "g", d / "h")
        os.mkdir(d / "sub")
        os.truncate(d / "g", 0)
        os.unlink(d / "g")
        said, seen = os.read(fd, 65536), []
        while said:
            _, mask, _, size = struct.unpack("iIII", said[:16])
            seen.append((hex(mask), said[16 : 16 + size].rstrip(b"\0")))
            said = said[16 + size :]
        return seen
    finally:
        os.close(fd)


@differs("ENOTSUP", "the kernel's FUSE cannot read through its cache without waiting")
def read_without_waiting(d: Path):
    make(d / "f", b"content")
    return opened(
        d / "f", os.O_RDONLY, lambda fd: attempt(os.preadv, fd, [bytearray(7)], 0, os.RWF_NOWAIT)
    )


@differs("ENOTTY", "pyfuse3 has no handler for ioctl, by which flags of inodes are read and set")
def flags_of_an_inode(d: Path):
    def use(fd: int) -> Any:
        return attempt(fcntl.ioctl, fd, 0x80086601, bytes(8))

    return opened(make(d / "f"), os.O_RDONLY, use)
