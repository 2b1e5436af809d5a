"""The lane on real mounts: the same bytes, the same figures, and an end in order."""

import itertools
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lane_files import PAGE, SIZE, content, direct, lane, until_answered
from mounting import Mounted, mounted, wait_for

from tmemfs.linux import system
from tmemfs.linux.syscalls import FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, fallocate

pytestmark = pytest.mark.root


@pytest.fixture
def mount(tmp_path: Path, source: Path) -> Iterator[Mounted]:
    with mounted(source, tmp_path / "m", "--budget=32M", "--swap=s=4M") as made:
        yield made


def test_a_file_that_is_read_again_is_granted(mount: Mounted) -> None:
    expected = content(1)
    with direct(mount.path / "file") as file:
        assert lane(mount)["grants"] == 0
        until_answered(mount, lambda: [file.read(i * PAGE, PAGE) for i in range(9)])
        assert lane(mount)["grants"] == 1
        for offset, size in itertools.product(range(0, SIZE, 5 * PAGE), (PAGE, 3 * PAGE, 1 << 20)):
            assert file.read(offset, size) == expected[offset : offset + size]
    wait_for("the close is heard of", lambda: lane(mount)["grants"] == 0)


def test_its_reads_are_counted_and_mark_pages(mount: Mounted) -> None:
    """Every read is a get, and what was found is found."""
    with direct(mount.path / "file") as file:
        file.read(0, SIZE)
        until_answered(mount, lambda: file.read(0, PAGE))
        before, answered = mount.pool("cache"), lane(mount)["answered"]
        for _ in range(100):
            file.read(0, 2 * PAGE)
        after, now = mount.pool("cache"), lane(mount)["answered"]
    # Pages of a cache volume have 8 KiB.
    assert after["gets"] - before["gets"] == after["found_gets"] - before["found_gets"] == 100
    assert now - answered >= 90


@pytest.mark.parametrize("change", ["behind", "through", "truncated", "grown", "dropped"])
def test_what_was_changed_is_not_read_from_memory(mount: Mounted, change: str) -> None:
    """However it was changed, the next open reads what there is; through us, the next read."""
    path = mount.path / "file"
    new = content(500)
    with direct(path, os.O_RDWR) as file:
        until_answered(mount, lambda: file.read(PAGE, PAGE))
        if change == "behind":
            (mount.source / "file").write_bytes(new)
        elif change == "through":
            file.write(0, new)
            assert file.read(0, SIZE) == new
        elif change == "truncated":
            os.truncate(path, 5 * PAGE + 7)
            new = content(1)[: 5 * PAGE + 7]
            assert file.read(4 * PAGE, 8 * PAGE) == new[4 * PAGE :]
            assert file.read(8 * PAGE, PAGE) == b""
            # Its last page is in memory again, with zeros behind the end: no part of the file.
            for _ in range(4):
                assert file.read(4 * PAGE, 2 * PAGE) == new[4 * PAGE :]
        elif change == "grown":
            with open(path, "ab") as more:
                more.write(b"more")
            new = content(1) + b"more"
            assert file.read(SIZE - PAGE, 2 * PAGE) == new[SIZE - PAGE :]
        else:
            (mount.control / "drop").write_text("all")
            new = content(1)
            assert file.read(PAGE, PAGE) == new[PAGE : 2 * PAGE]
    with direct(path) as file:
        assert file.read(0, 1 << 20) == new[: 1 << 20]


def test_what_is_read_ahead_goes_on(tmp_path: Path) -> None:
    """Half of a file is in memory, and who reads it in order gets to the other half unhindered."""
    source = tmp_path / "source"
    source.mkdir()
    expected = content(3, 8 << 8)
    (source / "large").write_bytes(expected)
    with mounted(source, tmp_path / "m", "--budget=64M", "-oreadahead=1M") as mount:
        with direct(mount.path / "large") as file:
            for at in range(0, 4 << 20, 64 << 10):
                file.read(at, 64 << 10)
            until_answered(mount, lambda: [file.read(i << 16, 64 << 10) for i in range(32)])
            before = mount.status()["cache"]["readahead_pages"]
            for at in range(0, len(expected), 64 << 10):
                assert file.read(at, 64 << 10) == expected[at : at + (64 << 10)]
        # Most of the second half was asked for before it was read.
        ahead = mount.status()["cache"]["readahead_pages"] - before
        assert (4 << 20) // 8192 // 2 < ahead <= (4 << 20) // 8192


@pytest.mark.parametrize("options", [["-ocache=none"], ["-onative=off"], ["-otrace=TRACE"]])
def test_where_it_answers_nothing(tmp_path: Path, source: Path, options: list[str]) -> None:
    options = [option.replace("TRACE", str(tmp_path / "trace")) for option in options]
    with mounted(source, tmp_path / "m", "--budget=16M", *options) as mount:
        with direct(mount.path / "file") as file:
            for _ in range(50):
                assert file.read(0, SIZE) == content(1)
        status = mount.status()
        off = options == ["-onative=off"]
        assert status["store"] == ("python" if off else "native")
        assert status["native_reader"] is not off
        assert status["lane"] is None if off else status["lane"]["answered"] == 0


# --- swap volumes --------------------------------------------------------------------------------


def test_swap_is_what_was_written_last(mount: Mounted) -> None:
    """Whether a page is in the write buffer, stored, a hole, or was never written."""
    choose, expected = random.Random(2), bytearray(4 << 20)
    with direct(mount.control / "swap" / "s", os.O_RDWR) as file:
        for step in range(3000):
            first, count = choose.randrange(1024), choose.choice([1, 1, 2, 16])
            count = min(count, 1024 - first)
            start, end = first * PAGE, (first + count) * PAGE
            if step % 3 == 0:
                data = content(step, count)
                file.write(start, data)
                expected[start:end] = data
            elif step % 50 == 1:
                punch(file.fd, start, end - start)
                expected[start:end] = bytes(end - start)
            else:
                assert file.read(start, end - start) == expected[start:end]
        assert lane(mount)["answered"] > 100


def punch(fd: int, offset: int, length: int) -> None:
    fallocate(fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, offset, length)


def test_old_or_new_and_nothing_else(mount: Mounted) -> None:
    """Who reads a page while it is written gets one of the two, never the hole in between."""
    path = mount.control / "swap" / "s"
    versions = [content(seed, 1) for seed in (0, 1, 4, 5)]
    stop = threading.Event()
    wrong: list[bytes] = []

    def read() -> None:
        with direct(path) as file:
            while not stop.is_set():
                found = file.read(0, PAGE)
                if found not in versions:
                    wrong.append(found)

    with direct(path, os.O_RDWR) as file:
        file.write(0, versions[0])
        readers = [threading.Thread(target=read) for _ in range(2)]
        for reader in readers:
            reader.start()
        for step in range(4000):
            # Every other one past the write buffer, which takes whole pages alone.
            data = versions[step % 4]
            file.write(0, data if step % 2 else data + versions[0])
        stop.set()
        for reader in readers:
            reader.join()
    assert not wrong
    assert lane(mount)["answered"] > 100


def test_a_mount_without_threads_for_it(tmp_path: Path, source: Path) -> None:
    """It is served all the same, and says so."""
    before = (
        "from tmemfs.fuse import session\n"
        "def lane(*args, **kwargs): raise BlockingIOError(11, 'no more threads')\n"
        "session.Lane = lane\n"
    )
    options = ("--budget=16M", "--swap=s=4M")
    with mounted(source, tmp_path / "m", *options, before=before, logs=True) as mount:
        with direct(mount.path / "file") as file:
            for _ in range(5):
                assert file.read(0, SIZE) == content(1)
        with direct(mount.control / "swap" / "s", os.O_RDWR) as swap:
            swap.write(0, content(2, 4))
            assert swap.read(0, 4 * PAGE) == content(2, 4)
        assert mount.status()["lane"] is None
        assert "no more threads" in mount.log()


# --- its end -------------------------------------------------------------------------------------

_LOAD = """
import os, sys, random
fds = [os.open(path, os.O_RDONLY) for path in sys.argv[1:]]
print(flush=True)
try:
    while True:
        for fd in fds:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.pread(fd, 65536, random.randrange(16) << 16)
except OSError:
    pass
"""


@contextmanager
def load(*paths: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that reads *paths* without end, until it gets an error."""
    process = subprocess.Popen(
        [sys.executable, "-c", _LOAD, *map(str, paths)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL", "lazily"])
def test_it_ends_under_load(tmp_path: Path, source: Path, how: str) -> None:
    """Nobody hangs, and no mount is left but that of a daemon that was killed."""
    for _ in range(3):
        with mounted(source, tmp_path / "m", "--budget=16M") as mount:
            with load(mount.path / "file") as one, load(mount.path / "file") as other:
                wait_for("the lane answers", lambda: lane(mount)["answered"] > 200)
                if how == "lazily":
                    subprocess.run(["umount", "-l", mount.path], check=True)
                    one.kill()
                    other.kill()
                elif how == "SIGTERM":
                    mount.process.send_signal(signal.SIGTERM)
                else:
                    mount.kill()
                mount.process.wait(60)
                for process in (one, other):
                    process.wait(60)
            if how == "SIGKILL":
                subprocess.run(["umount", "-l", mount.path], check=True)
        assert system.mount_at(str(tmp_path / "m")) is None


def test_a_handler_that_raises_leaves_the_lane(tmp_path: Path, source: Path) -> None:
    """Requests that Python fails to serve are answered with an error, others by the lane."""
    before = (
        "from tmemfs.cachefs.names import Names\n"
        "async def fail(self, inode): raise RuntimeError('injected')\n"
        "Names.readlink = fail\n"
    )
    os.symlink("file", source / "link")
    with mounted(source, tmp_path / "m", "--budget=16M", before=before, logs=True) as mount:
        with direct(mount.path / "file") as file:
            until_answered(mount, lambda: file.read(0, PAGE))
            with pytest.raises(OSError, match="Input/output error"):
                os.readlink(mount.path / "link")
            until_answered(mount, lambda: file.read(0, PAGE))
        assert mount.status()["failsafe"]["count"] == 1


def test_threads_are_parked_while_there_is_nothing_for_them(mount: Mounted) -> None:
    with direct(mount.path / "file") as file:
        until_answered(mount, lambda: [file.read(0, PAGE) for _ in range(20)])
        for number in range(100):
            assert not os.access(mount.path / f"none{number}", os.F_OK)
        wait_for("they are parked", lambda: lane(mount)["parked"])
        # And serve again.
        until_answered(mount, lambda: [file.read(0, PAGE) for _ in range(20)])
