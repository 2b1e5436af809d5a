"""The bytes of files: opening, reading, writing, cutting, mapping, locking."""

import fcntl
import mmap
import os
from pathlib import Path

from posix_cases.runner import ALICE, as_user, attempt, case, differs, look, make, opened

from tmemfs.linux.syscalls import FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE, fallocate

RW = os.O_RDWR | os.O_CREAT
TEXT = bytes(range(256)) * 512  # 128 KiB


# -- reading and writing ----------------------------------------------------------------------


@case
def write_and_read_back(d: Path):
    make(d / "f", TEXT)
    return (d / "f").read_bytes() == TEXT, look(d / "f")["size"]


@case
def read_at_and_beyond_the_end(d: Path):
    make(d / "f", b"0123456789")
    return opened(
        d / "f", os.O_RDONLY, lambda fd: [os.pread(fd, 100, at) for at in (0, 9, 10, 11, 1 << 40)]
    )


@case
def read_of_nothing(d: Path):
    make(d / "f", b"x")
    return opened(d / "f", os.O_RDONLY, lambda fd: (os.read(fd, 0), os.pread(fd, 0, 100)))


@case
def read_at_a_negative_offset(d: Path):
    make(d / "f", b"x")
    return opened(d / "f", os.O_RDONLY, lambda fd: attempt(os.pread, fd, 1, -1))


@case
def read_what_is_open_for_writing_and_the_reverse(d: Path):
    make(d / "f", b"x")
    return (
        opened(d / "f", os.O_WRONLY, lambda fd: attempt(os.read, fd, 1)),
        opened(d / "f", os.O_RDONLY, lambda fd: attempt(os.write, fd, b"y")),
        opened(d / "f", os.O_RDONLY, lambda fd: attempt(os.ftruncate, fd, 0)),
    )


@case
def read_of_a_directory(d: Path):
    return (
        opened(d, os.O_RDONLY, lambda fd: attempt(os.read, fd, 1)),
        attempt(os.open, d, os.O_WRONLY),
        attempt(os.open, d, os.O_RDWR),
    )


@case
def write_in_the_middle(d: Path):
    make(d / "f", TEXT)
    opened(d / "f", os.O_WRONLY, lambda fd: os.pwrite(fd, b"middle", 70001))
    return (d / "f").read_bytes() == TEXT[:70001] + b"middle" + TEXT[70007:]


@case
def write_beyond_the_end_leaves_zeros(d: Path):
    make(d / "f", b"start")
    opened(d / "f", os.O_WRONLY, lambda fd: os.pwrite(fd, b"end", 200_000))
    content = (d / "f").read_bytes()
    return content == b"start".ljust(200_000, b"\0") + b"end", os.stat(d / "f").st_size


@case
def sparse_file_takes_no_blocks(d: Path):
    opened(d / "f", RW, lambda fd: os.pwrite(fd, b"x", (1 << 33) - 1))
    info = os.stat(d / "f")
    return info.st_size, info.st_blocks < 1000


@case
def largest_offset(d: Path):
    return opened(
        d / "f",
        RW,
        lambda fd: (
            attempt(os.pwrite, fd, b"x", (1 << 63) - 1),
            attempt(os.ftruncate, fd, (1 << 63) - 1),
        ),
    )


@case
def position_moves_with_reads_and_writes(d: Path):
    def use(fd: int):
        os.write(fd, b"0123456789")
        os.lseek(fd, 2, os.SEEK_SET)
        read = os.read(fd, 3)
        os.write(fd, b"X")
        return read, os.lseek(fd, 0, os.SEEK_CUR), os.lseek(fd, -1, os.SEEK_END), os.read(fd, 5)

    return opened(d / "f", RW, use)


@case
def seek_to_impossible_places(d: Path):
    make(d / "f", b"x")
    return opened(
        d / "f",
        os.O_RDONLY,
        lambda fd: (
            attempt(os.lseek, fd, -1, os.SEEK_SET),
            attempt(os.lseek, fd, -5, os.SEEK_END),
            attempt(os.lseek, fd, 0, 77),
        ),
    )


@differs(
    (0, 262144),
    "what is written to a mapping, the kernel alone knows: all is data while somebody may write",
)
def seek_to_holes_and_data_while_writing(d: Path):
    def use(fd: int):
        os.ftruncate(fd, 262144)
        os.pwrite(fd, b"x" * 4096, 131072)
        os.fsync(fd)
        return os.lseek(fd, 0, os.SEEK_DATA), os.lseek(fd, 0, os.SEEK_HOLE)

    return opened(d / "f", RW, use)


@case
def seek_to_holes_and_data(d: Path):
    with open(d / "f", "wb") as file:
        file.truncate(262144)
        file.seek(131072)
        file.write(b"x" * 4096)
    places = [(0, os.SEEK_DATA), (0, os.SEEK_HOLE), (131073, os.SEEK_HOLE), (200_000, os.SEEK_DATA)]
    return opened(
        d / "f",
        os.O_RDONLY,
        lambda fd: [attempt(os.lseek, fd, *place) for place in (*places, (262144, os.SEEK_HOLE))],
    )


@case
def seek_to_data_beyond_the_end(d: Path):
    make(d / "f", b"x")
    return opened(d / "f", os.O_RDONLY, lambda fd: attempt(os.lseek, fd, 5, os.SEEK_DATA))


@case
def vectors(d: Path):
    def use(fd: int):
        os.pwritev(fd, [b"one", b"", b"two" * 5000], 10)
        parts = [bytearray(5), bytearray(20000)]
        return os.preadv(fd, parts, 8), bytes(parts[0]), bytes(parts[1]).count(b"two")

    return opened(d / "f", RW, use)


@case
def copy_within_the_kernel(d: Path):
    make(d / "a", TEXT)

    def copy(source: int):
        return opened(d / "b", RW, lambda fd: os.copy_file_range(source, fd, len(TEXT)))

    return opened(d / "a", os.O_RDONLY, copy), (d / "b").read_bytes() == TEXT


@case
def sendfile_out_of_it(d: Path):
    make(d / "a", TEXT)
    make(d / "b")
    with open(d / "a", "rb") as source, open(d / "b", "r+b") as target:
        sent = os.sendfile(target.fileno(), source.fileno(), 5, 70000)
    return sent, (d / "b").read_bytes() == TEXT[5:70005]


@case
def large_writes_and_reads(d: Path):
    block = TEXT * 40  # 5 MiB

    def use(fd: int):
        return os.write(fd, block), os.pread(fd, len(block) + 1, 0) == block

    return opened(d / "f", RW, use)


@case
def direct_io(d: Path):
    buffer = mmap.mmap(-1, 8192)
    buffer.write(b"direct" + bytes(4090) + b"D" * 4096)

    def use(fd: int):
        written = os.pwritev(fd, [buffer], 4096)
        back = mmap.mmap(-1, 8192)
        return written, os.preadv(fd, [back], 4096), back[:] == buffer[:]

    return opened(d / "f", RW | os.O_DIRECT, use), os.stat(d / "f").st_size


@case
def synchronous_writes(d: Path):
    return [
        opened(d / f"f{flag}", RW | flag, lambda fd: os.write(fd, b"durable"))
        for flag in (os.O_SYNC, os.O_DSYNC)
    ]


@case
def fsync_of_each_kind(d: Path):
    make(d / "f", b"x")
    return (
        opened(d / "f", os.O_RDWR, os.fsync),
        opened(d / "f", os.O_RDWR, os.fdatasync),
        opened(d / "f", os.O_RDONLY, os.fsync),
        opened(d, os.O_RDONLY, os.fsync),
    )


# -- opening ----------------------------------------------------------------------------------


@case
def open_truncates(d: Path):
    make(d / "f", TEXT)
    opened(d / "f", os.O_WRONLY | os.O_TRUNC, lambda fd: os.write(fd, b"short"))
    return (d / "f").read_bytes(), look(d / "f")


@case
def open_truncates_under_another_reader(d: Path):
    make(d / "f", TEXT)

    def use(fd: int):
        before = os.pread(fd, 10, 0)
        opened(d / "f", os.O_WRONLY | os.O_TRUNC, lambda other: os.write(other, b"new"))
        return before, os.pread(fd, 10, 0), os.fstat(fd).st_size

    return opened(d / "f", os.O_RDONLY, use)


@case
def open_for_reading_and_truncating(d: Path):
    make(d / "f", b"text")
    os.close(os.open(d / "f", os.O_RDONLY | os.O_TRUNC))
    return os.stat(d / "f").st_size


@case
def append_from_two_descriptors(d: Path):
    def use(one: int):
        def both(two: int):
            for number in range(10):
                os.write(one, b"one %d\n" % number)
                os.write(two, b"two %d\n" % number)
            return (d / "f").read_bytes()

        return opened(d / "f", os.O_WRONLY | os.O_APPEND, both)

    return opened(d / "f", RW | os.O_APPEND, use)


@case
def append_after_a_truncation(d: Path):
    def use(fd: int):
        os.write(fd, b"long before")
        os.truncate(d / "f", 4)
        os.write(fd, b"!")
        return (d / "f").read_bytes(), os.lseek(fd, 0, os.SEEK_CUR)

    return opened(d / "f", RW | os.O_APPEND, use)


@case
def append_ignores_the_position(d: Path):
    make(d / "f", b"0123")

    def use(fd: int):
        os.lseek(fd, 1, os.SEEK_SET)
        os.write(fd, b"end")
        return os.pread(fd, 10, 0)

    return opened(d / "f", os.O_RDWR | os.O_APPEND, use)


@case
def flag_to_append_set_later(d: Path):
    make(d / "f", b"0123")

    def use(fd: int):
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
        os.write(fd, b"end")
        return (d / "f").read_bytes()

    return opened(d / "f", os.O_RDWR, use)


@case
def flags_are_remembered(d: Path):
    make(d / "f")
    mask = os.O_ACCMODE | os.O_APPEND | os.O_NONBLOCK
    return [
        opened(d / "f", flags, lambda fd: fcntl.fcntl(fd, fcntl.F_GETFL) & mask)
        for flags in (os.O_RDONLY, os.O_WRONLY | os.O_APPEND, os.O_RDWR | os.O_NONBLOCK)
    ]


def _name(fd: int, d: Path) -> None:
    opened(d, os.O_RDONLY, lambda top: os.link(f"/proc/self/fd/{fd}", "named", dst_dir_fd=top))


@case
def file_without_a_name(d: Path):
    def use(fd: int):
        written = os.write(fd, b"content")
        seen = os.pread(fd, 100, 0), look(fd), os.listdir(d)
        _name(fd, d)
        return written, seen, look(fd), os.listdir(d), (d / "named").read_bytes()

    return opened(d, os.O_TMPFILE | os.O_RDWR, use, 0o640), (d / "named").read_bytes()


@case
def file_that_never_has_a_name(d: Path):
    def use(fd: int):
        os.write(fd, b"content")
        return attempt(_name, fd, d)

    return opened(d, os.O_TMPFILE | os.O_RDWR | os.O_EXCL, use), os.listdir(d)


@case
def file_without_a_name_of_a_user(d: Path):
    os.chmod(d, 0o777)

    def make_it():
        return opened(d, os.O_TMPFILE | os.O_RDWR, look, 0o666)

    return as_user(ALICE, make_it, umask=0o027)


@case
def program_is_run_and_cannot_be_written(d: Path):
    import shutil
    import subprocess

    shutil.copy("/bin/sleep", d / "program")
    os.chmod(d / "program", 0o755)
    with subprocess.Popen([d / "program", "60"]) as process:
        busy = attempt(os.open, d / "program", os.O_WRONLY), attempt(os.truncate, d / "program", 0)
        process.kill()
    return busy


# -- cutting ----------------------------------------------------------------------------------


@case
def truncate_to_each_size(d: Path):
    make(d / "f", TEXT)
    seen = []
    for size in (100_000, 65_536, 4097, 4096, 4095, 1, 0):
        os.truncate(d / "f", size)
        seen.append(((d / "f").read_bytes() == TEXT[:size], os.stat(d / "f").st_size))
    return seen


@case
def truncate_up_leaves_zeros(d: Path):
    make(d / "f", b"abcdef")
    os.truncate(d / "f", 3)
    os.truncate(d / "f", 100_000)
    return (d / "f").read_bytes() == b"abc".ljust(100_000, b"\0"), look(d / "f")["size"]


@case
def cut_bytes_do_not_come_back(d: Path):
    def use(fd: int):
        os.write(fd, b"s" * 50_000)
        os.pread(fd, 50_000, 0)
        os.ftruncate(fd, 10)
        os.pwrite(fd, b"e", 60_000)
        return os.pread(fd, 70_000, 0) == b"s" * 10 + bytes(59_990) + b"e"

    return opened(d / "f", RW, use)


@case
def truncate_of_what_cannot_be(d: Path):
    os.mkdir(d / "sub")
    os.symlink("sub", d / "l")
    os.mkfifo(d / "p")
    return (
        [attempt(os.truncate, d / name, 0) for name in ("sub", "l", "p", "none")],
        attempt(os.truncate, make(d / "f"), -1),
    )


@case
def ftruncate_under_another_descriptor(d: Path):
    make(d / "f", TEXT)

    def use(fd: int):
        os.pread(fd, len(TEXT), 0)
        opened(d / "f", os.O_WRONLY, lambda other: os.ftruncate(other, 5))
        return os.pread(fd, 100, 0), os.fstat(fd).st_size

    return opened(d / "f", os.O_RDONLY, use)


def _change(d: Path, mode: int, offset: int, length: int):
    """What fallocate(2) does to a file that was read before, of 20,000 bytes."""
    make(d / "f", TEXT[:20_000])

    def use(fd: int):
        os.pread(fd, 30_000, 0)
        done = attempt(fallocate, fd, mode, offset, length)
        return done, os.pread(fd, 200_000, 0), look(fd)

    return opened(d / "f", os.O_RDWR, use), (d / "f").read_bytes()


@case
def fallocate_allocates(d: Path):
    return _change(d, 0, 4096, 30_000)


@case
def fallocate_allocates_and_keeps_the_size(d: Path):
    return _change(d, FALLOC_KEEP_SIZE, 4096, 30_000)


@case
def fallocate_punches_a_hole(d: Path):
    return _change(d, FALLOC_KEEP_SIZE | FALLOC_PUNCH_HOLE, 5000, 9000)


@case
def fallocate_punches_a_hole_over_the_end(d: Path):
    return _change(d, FALLOC_KEEP_SIZE | FALLOC_PUNCH_HOLE, 4096, 100_000)


@case
def fallocate_zeroes(d: Path):
    return _change(d, FALLOC_ZERO_RANGE, 5000, 30_000)


@case
def fallocate_zeroes_and_keeps_the_size(d: Path):
    return _change(d, FALLOC_KEEP_SIZE | FALLOC_ZERO_RANGE, 5000, 30_000)


@case
def fallocate_of_what_cannot_be(d: Path):
    make(d / "f", TEXT)
    (d / "sub").mkdir()
    cases = [(0, 0, 0), (0, -1, 5), (0, 0, 1 << 62), (FALLOC_PUNCH_HOLE, 0, 4096)]
    return [
        opened(d / "f", os.O_RDWR, lambda fd: [attempt(fallocate, fd, *case) for case in cases]),
        opened(d / "f", os.O_RDONLY, lambda fd: attempt(fallocate, fd, 0, 0, 10)),
        opened(d / "sub", os.O_RDONLY, lambda fd: attempt(fallocate, fd, 0, 0, 10)),
        look(d / "f"),
    ]


@case
def fallocate_clears_the_set_id_bits(d: Path):
    make(d / "f", TEXT).chmod(0o6777)

    def change():
        return opened(d / "f", os.O_RDWR, lambda fd: attempt(fallocate, fd, 0, 0, 200_000))

    return as_user(ALICE, change), look(d / "f")


@differs(
    [("ENOTSUP", 131_072), ("ENOTSUP", 131_072)],
    "the kernel passes on no fallocate of FUSE that moves bytes",
)
def fallocate_that_moves_bytes(d: Path):
    collapse, insert = 8, 32
    make(d / "f", TEXT)

    def change(mode: int):
        return opened(d / "f", os.O_RDWR, lambda fd: attempt(fallocate, fd, mode, 4096, 4096))

    return [(change(mode), look(d / "f")["size"]) for mode in (collapse, insert)]


@case
def posix_fallocate_extends(d: Path):
    def use(fd: int):
        os.posix_fallocate(fd, 0, 50_000)
        return os.fstat(fd).st_size, os.pread(fd, 60_000, 0) == bytes(50_000)

    return opened(d / "f", RW, use)


# -- mapping ----------------------------------------------------------------------------------


@case
def mapped_reads(d: Path):
    make(d / "f", TEXT)
    with open(d / "f", "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
        return view[:] == TEXT


@case
def mapped_writes_reach_the_file(d: Path):
    make(d / "f", TEXT)
    with open(d / "f", "r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        view[5:10] = b"mmap!"
        view[100_000:100_005] = b"again"
        view.flush()
    want = TEXT[:5] + b"mmap!" + TEXT[10:100_000] + b"again" + TEXT[100_005:]
    return (d / "f").read_bytes() == want


@case
def mapped_writes_are_seen_by_reads(d: Path):
    make(d / "f", TEXT)
    with open(d / "f", "r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        os.pread(file.fileno(), 100, 0)
        view[0:4] = b"MMAP"
        first = os.pread(file.fileno(), 4, 0)
        os.pwrite(file.fileno(), b"pwrite", 20)
        return first, view[20:26]


@case
def mapped_writes_through_a_descriptor_that_appends(d: Path):
    make(d / "f", b"a" * 10_000)

    def use(fd: int):
        with mmap.mmap(fd, 10_000) as view:
            view[0:5] = b"first"
            view.flush()
            os.write(fd, b"last")
            view[5:10] = b"again"
        os.fsync(fd)
        return os.fstat(fd).st_size

    size = opened(d / "f", os.O_RDWR | os.O_APPEND, use)
    return size, (d / "f").read_bytes() == b"firstagain" + b"a" * 9990 + b"last"


@case
def private_mapping_keeps_its_writes(d: Path):
    make(d / "f", b"original" * 1000)
    with (
        open(d / "f", "r+b") as file,
        mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE) as view,
    ):
        view[0:4] = b"mine"
        return view[:8], (d / "f").read_bytes()[:8]


@case
def mapping_of_an_unlinked_file(d: Path):
    make(d / "f", TEXT)
    with open(d / "f", "r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        os.unlink(d / "f")
        view[0:4] = b"gone"
        view.flush()
        return os.pread(file.fileno(), 6, 0), view[100:105]


@case
def mapping_after_truncation(d: Path):
    make(d / "f", TEXT)
    with open(d / "f", "r+b") as file, mmap.mmap(file.fileno(), len(TEXT)) as view:
        read = view[0:100]
        os.ftruncate(file.fileno(), 50)
        return read == TEXT[:100], view[40:60]


# -- locks ------------------------------------------------------------------------------------


@case
def flock_excludes(d: Path):
    make(d / "f")
    with open(d / "f") as one, open(d / "f") as two:
        fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held = attempt(fcntl.flock, two, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(one, fcntl.LOCK_UN)
        return held, attempt(fcntl.flock, two, fcntl.LOCK_SH | fcntl.LOCK_NB)


@case
def record_locks_exclude_other_processes(d: Path):
    import subprocess
    import sys

    program = (
        "import fcntl, sys\n"
        "file = open(sys.argv[1], 'r+b')\n"
        "for start in (0, 100):\n"
        "    try:\n"
        "        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 50, start)\n"
        "        print('free')\n"
        "    except OSError:\n"
        "        print('held')\n"
    )
    make(d / "f", bytes(200))
    with open(d / "f", "r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX, 50, 0)
        return subprocess.check_output([sys.executable, "-c", program, d / "f"], text=True)


@case
def lease_or_its_refusal_does_no_harm(d: Path):
    make(d / "f", b"x")
    with open(d / "f") as file:
        attempt(fcntl.fcntl, file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return (d / "f").read_bytes()
