"""Writes by the lane on real mounts: what they change, what they leave alone, whose they are."""

import ctypes
import errno
import mmap
import os
import random
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from as_root import NOBODY, as_nobody, public_directory
from lane_files import PAGE, PAGES, SIZE, content
from loop_swap import run
from mounting import SECONDS, Mounted, drop_kernel_caches, mounted, wait_for
from page_data import page
from sources import ext4

from tmemfs.cachefs.granting import Granter
from tmemfs.native import load
from tmemfs.native.lane import Written

pytestmark = pytest.mark.root


@pytest.fixture
def mount(tmp_path: Path, source: Path) -> Iterator[Mounted]:
    with mounted(source, tmp_path / "m", "--budget=32M") as made:
        yield made


def answered(mount: Mounted) -> int:
    return int(mount.status()["lane"]["answered"])


def by_the_lane(mount: Mounted, write: Callable[[], object], count: int = 8) -> None:
    """Write again and again; most of it the lane has to do."""
    before = answered(mount)
    for _ in range(count):
        write()
    assert answered(mount) - before >= count - 1


@contextmanager
def opened(path: Path, flags: int = os.O_RDWR) -> Iterator[int]:
    fd = os.open(path, flags, 0o644)
    try:
        yield fd
    finally:
        os.close(fd)


@pytest.fixture
def fd(mount: Mounted) -> Iterator[int]:
    with opened(mount.path / "file") as fd:
        yield fd


def test_what_is_written_is_there_at_once_and_counted(mount: Mounted, fd: int) -> None:
    expected = bytearray(content(1))
    chooser = random.Random(1)
    size = 0
    for _ in range(300):
        start = chooser.randrange(SIZE)
        data = chooser.randbytes(chooser.choice([1, 100, PAGE, 3 * PAGE + 5]))
        assert os.pwrite(fd, data, start) == len(data)
        expected[start : start + len(data)] = data
        size += len(data)
        if chooser.random() < 0.1:
            assert os.fstat(fd).st_size == len(expected)
        if chooser.random() < 0.1:
            assert (mount.source / "file").read_bytes() == expected
        if chooser.random() < 0.1:
            drop_kernel_caches()
            assert (mount.path / "file").read_bytes() == expected
    figures = mount.status()["cache"]
    assert figures["backing_write_bytes"] == size
    assert answered(mount) > 290


def test_a_new_file_grows(mount: Mounted) -> None:
    data = content(7)
    with opened(mount.path / "new", os.O_RDWR | os.O_CREAT) as fd:
        for start in range(0, SIZE, 1000):
            os.write(fd, data[start : start + 1000])
        assert os.fstat(fd).st_size == SIZE
        assert os.pread(fd, 2 * SIZE, 0) == data
        assert answered(mount) > SIZE // 2000
        os.ftruncate(fd, 5000)
        assert os.pread(fd, SIZE, 0) == data[:5000]
        os.pwrite(fd, b"end", SIZE)
        drop_kernel_caches()
        assert os.pread(fd, 2 * SIZE, 0) == data[:5000] + bytes(SIZE - 5000) + b"end"
    assert (mount.source / "new").stat().st_size == SIZE + 3


def test_what_was_written_alone_is_read_from_memory(mount: Mounted, fd: int) -> None:
    """As what Python writes: with the part of its page that was there before."""
    assert os.pread(fd, SIZE, 0) == content(1)
    before = mount.status()["cache"]["backing_reads"]
    os.pwrite(fd, b"changed", 3 * PAGE + 100)
    drop_kernel_caches()
    expected = bytearray(content(1))
    expected[3 * PAGE + 100 : 3 * PAGE + 107] = b"changed"
    assert os.pread(fd, SIZE, 0) == expected
    assert mount.status()["cache"]["backing_reads"] == before
    assert answered(mount) >= 1


@pytest.mark.parametrize("between", [False, True], ids=["at once", "heard of between"])
def test_changes_behind_the_mount_show(mount: Mounted, fd: int, between: bool) -> None:
    """Behind a write of the lane, they are not taken for its own."""
    assert os.pread(fd, SIZE, 0) == content(1)
    by_the_lane(mount, lambda: os.pwrite(fd, b"ours", 0))
    if between:
        os.fstat(fd)
    with open(mount.source / "file", "r+b") as file:
        file.seek(9 * PAGE)
        file.write(b"theirs")
    os.pwrite(fd, b"OURS", 0)
    drop_kernel_caches()
    assert os.pread(fd, 6, 9 * PAGE) == b"theirs"
    assert os.pread(fd, 4, 0) == b"OURS"


def test_who_appends_does_so_at_the_end_whoever_moved_it(mount: Mounted, fd: int) -> None:
    expected = content(1)
    with opened(mount.path / "file", os.O_WRONLY | os.O_APPEND) as end:
        for number in range(20):
            os.pwrite(fd, b"moved", SIZE + 14 * number)
            os.write(end, b"and after")
            expected += b"movedand after"
        assert os.fstat(end).st_size == len(expected)
    assert (mount.source / "file").read_bytes() == expected
    assert answered(mount) >= 19


def test_set_ids_stay_with_roots_writes_and_go_with_others() -> None:
    with public_directory() as top:
        (top / "source").mkdir()
        (top / "source" / "tool").write_bytes(b"first")
        (top / "source" / "tool").chmod(0o777)
        with mounted(top / "source", top / "m", "--budget=32M") as mount:
            path = mount.path / "tool"

            def mode() -> int:
                return stat.S_IMODE((mount.source / "tool").stat().st_mode)

            def write() -> int:
                with opened(path) as fd:
                    os.pwrite(fd, b"theirs", 0)
                return 0

            with opened(path) as fd:
                by_the_lane(mount, lambda: os.pwrite(fd, b"x", 0))
                path.chmod(0o4777)
                seen = answered(mount)
                os.pwrite(fd, b"root's", 0)
                assert (answered(mount), mode()) == (seen, 0o4777)
                assert as_nobody(write).code == 0
                assert mode() == 0o777


def test_a_full_disk_says_so_and_earlier_to_users() -> None:
    """With the error that it has, after what there was room for."""
    with public_directory() as top, ext4(top, size=24 << 20, options="-m 50") as source:
        source.path.chmod(0o777)
        with mounted(source.path, top / "m", "--budget=32M") as mount:

            def fill(name: str) -> int:
                """Write until there is no room; return how many MiB there were."""
                size = 0
                with opened(mount.path / name, os.O_RDWR | os.O_CREAT) as fd:
                    while size < 32 << 20:
                        try:
                            size += os.pwrite(fd, page(size, PAGE, "raw"), size)
                        except OSError as error:
                            assert error.errno == errno.ENOSPC
                            break
                    assert os.fstat(fd).st_size == size
                return size >> 20

            users = as_nobody(lambda: fill("users")).code
            roots = fill("roots")
            assert 4 <= users <= 14
            assert roots >= 8
            assert answered(mount) >= 8
            for name in ("users", "roots"):
                assert (mount.path / name).read_bytes() == (mount.source / name).read_bytes()
            assert (mount.source / "users").stat().st_uid == NOBODY


def test_beside_swap_a_disk_keeps_no_thread_waiting(tmp_path: Path, source: Path) -> None:
    with mounted(source, tmp_path / "m", "--budget=32M", "--swap=s=4M") as mount:
        with opened(mount.path / "file") as fd:
            for _ in range(40):
                os.pwrite(fd, b"data", 0)
            assert mount.status()["cache"]["backing_writes"] == 40
        assert answered(mount) == 0


def test_who_cannot_hear_of_it_answers_nobody(tmp_path: Path, source: Path) -> None:
    """Out of memory, a request is refused rather than answered with what was there before."""
    fails = (
        "from tmemfs.cachefs.volume import CacheVolume\n"
        "hear = CacheVolume._was_written\n"
        "left = [3]\n"
        "def fail(self, file, written):\n"
        "    left[0] -= 1\n"
        "    if left[0] >= 0:\n"
        "        raise MemoryError\n"
        "    hear(self, file, written)\n"
        "CacheVolume._was_written = fail\n"
    )
    with (
        mounted(source, tmp_path / "m", "--budget=32M", before=fails, logs=True) as mount,
        opened(mount.path / "file", os.O_RDWR | os.O_DIRECT) as fd,
    ):
        room = mmap.mmap(-1, PAGE)
        refused = 0
        assert os.preadv(fd, [room], 0) == PAGE
        room[:] = b"x" * PAGE
        assert os.pwritev(fd, [room], 0) == PAGE
        room[:] = bytes(PAGE)
        while room[:] == bytes(PAGE):
            try:
                os.preadv(fd, [room], 0)
            except OSError as error:
                assert error.errno == errno.ENOMEM
                refused += 1
        assert room[:] == b"x" * PAGE
        assert refused == 3


def test_readers_and_writers_at_once(mount: Mounted) -> None:
    """Each page says how old it is; nobody reads one that is older than what was written."""
    path = mount.path / "file"
    ends = threading.Event()
    written = [0] * PAGES
    wrong: list[object] = []

    def stamped(index: int, version: int) -> bytes:
        return f"{index:07d},{version:07d}".encode().ljust(PAGE, b".")

    path.write_bytes(b"".join(stamped(i, 0) for i in range(PAGES)))

    def read() -> None:
        chooser = random.Random(threading.get_ident())
        with open(path, "rb", buffering=0) as file:
            while not ends.is_set():
                index = chooser.randrange(PAGES)
                least = written[index]
                data = os.pread(file.fileno(), PAGE, index * PAGE)
                if data[:7] != b"%07d" % index or int(data[8:15]) < least:
                    wrong.append((index, least, data[:16]))

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    chooser = random.Random(5)
    with opened(path) as fd:
        for version in range(1, 3000):
            index = chooser.randrange(PAGES)
            os.pwrite(fd, stamped(index, version), index * PAGE)
            written[index] = version
            if version % 500 == 0:
                drop_kernel_caches()
    ends.set()
    for reader in readers:
        reader.join()
    assert not wrong
    wait_for("all are closed", lambda: mount.status()["lane"]["grants"] == 0)


def test_the_end_of_a_write_that_failed_is_no_end() -> None:
    """Who appends then does so behind what somebody else has appended, not over it."""
    with public_directory() as top, ext4(top, size=24 << 20) as source:
        (source.path / "file").write_bytes(b"first,")
        with (
            mounted(source.path, top / "m", "--budget=32M") as mount,
            opened(mount.path / "file") as fd,
            opened(mount.path / "file", os.O_WRONLY | os.O_APPEND) as end,
        ):
            by_the_lane(mount, lambda: os.pwrite(fd, b"FIRST", 0))
            with (
                pytest.raises(OSError, match="No space"),
                open(source.path / "filler", "wb", buffering=0) as filler,
            ):
                while filler.write(bytes(PAGE)):
                    pass
            with pytest.raises(OSError, match="No space"):
                os.pwrite(fd, b"x" * PAGE, 16 << 20)
            (source.path / "filler").unlink()
            with open(source.path / "file", "ab") as behind:
                behind.write(b"behind,")
            os.write(end, b"through")
        assert (source.path / "file").read_bytes() == b"FIRST,behind,through"


def test_a_file_without_a_name_or_with_another_one(mount: Mounted, fd: int) -> None:
    """It is the file that was opened which is written."""
    os.rename(mount.path / "file", mount.path / "moved")
    (mount.path / "file").write_bytes(b"another")
    by_the_lane(mount, lambda: os.pwrite(fd, b"moved", 0))
    assert (mount.source / "moved").read_bytes() == b"moved" + content(1)[5:]
    os.unlink(mount.path / "moved")
    by_the_lane(mount, lambda: os.pwrite(fd, b"gone!", 0))
    drop_kernel_caches()
    assert os.pread(fd, 2 * SIZE, 0) == b"gone!" + content(1)[5:]
    assert (mount.source / "file").read_bytes() == b"another"


def test_who_waits_for_a_disk_keeps_nobody_else_waiting() -> None:
    """A frozen filesystem takes no write; what is in memory of it is read all the same."""
    with public_directory() as top, ext4(top) as source:
        for name in ("read", "written"):
            (source.path / name).write_bytes(content(1))
        with (
            mounted(source.path, top / "m", "--budget=32M") as mount,
            opened(mount.path / "read", os.O_RDONLY | os.O_DIRECT) as read,
            opened(mount.path / "written") as written,
        ):
            room = mmap.mmap(-1, PAGE)
            page = content(1)[:PAGE]

            def reads() -> bool:
                return os.preadv(read, [room], 0) == PAGE and room[:] == page

            # Until the threads are at work: else Python's would wait.
            for _ in range(40):
                os.pwrite(written, b"data", 0)
                assert reads()
            before = answered(mount)
            found: list[bool] = []
            writer = threading.Thread(target=os.pwrite, args=(written, b"late", 0))
            reader = threading.Thread(target=lambda: found.extend(reads() for _ in range(200)))
            run("fsfreeze", "--freeze", source.path)
            try:
                writer.start()
                reader.start()
                reader.join(SECONDS)
                assert writer.is_alive()
                assert found == [True] * 200
            finally:
                run("fsfreeze", "--unfreeze", source.path)
                writer.join()
                reader.join()
            assert answered(mount) - before >= 200
            assert os.pread(written, 4, 0) == b"late"


def test_nobody_hears_without_end_beside_who_writes_without_end() -> None:
    class Endless:
        settled = 0

        def unsettled(self) -> int:
            return 2

        def written(self) -> Written:
            return Written(7, 0, 1, 1, 1, (0, 0, 0), (0, 0, 1), True, b"")

        def settle(self) -> None:
            self.settled += 1

    nothing: Any = SimpleNamespace(page_size=PAGE)
    granter, lane, file = Granter(nothing, nothing, may_write=True), Endless(), object()
    granter.lane = lane  # type: ignore[assignment]
    granter.files[7] = file  # type: ignore[assignment]
    assert [heard for heard, _ in granter.heard()] == [file, file]
    assert lane.settled == 2


def test_a_thread_that_cannot_act_as_somebody_says_so() -> None:
    """With the ids of whoever it was before, it would write as that."""
    assert load.extension is not None
    library = ctypes.CDLL(load.extension.__file__)
    told: list[object] = []

    def act() -> None:
        caller = ctypes.create_string_buffer(1 << 12)
        library.caller_of_thread(caller)
        library.caller_strip(caller)
        for uid, gid in ((NOBODY, NOBODY), (2**32 - 1, NOBODY), (NOBODY, 2**32 - 1), (0, 0)):
            became = library.caller_become(caller, ctypes.c_uint32(uid), ctypes.c_uint32(gid))
            told.append(became)
            told.append(_status("Uid")[3])
        told.append(_status("CapEff"))
        library.caller_restore(caller)
        told.append((_status("Uid")[3], _status("Groups"), _status("CapEff")))

    def _status(name: str) -> list[str]:
        text = Path(f"/proc/self/task/{threading.get_native_id()}/status").read_text()
        return next(line.split()[1:] for line in text.splitlines() if line.startswith(name))

    before = (_status("Uid")[3], _status("Groups"), _status("CapEff"))
    thread = threading.Thread(target=act)
    thread.start()
    thread.join()
    nobody = str(NOBODY)
    few = ["00000000000000c0"]  # to change ids, and nothing else
    assert told == [1, nobody, 0, nobody, 0, nobody, 1, "0", few, before]
