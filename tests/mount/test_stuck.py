"""A backing file that does not answer holds up no other; what many miss is read once, and ahead.

Each test has a real filesystem below that hangs where it is told to, and tells what it was asked.
"""

import errno
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from faulty import FaultyBacking, over_faulty, read_direct, requests_of
from mounting import SECONDS, Mounted, drop_kernel_caches, wait_for
from page_data import run
from rig import left_alone

pytestmark = pytest.mark.root

KIB = 1 << 10
MIB = 1 << 20
READERS = 200
PART = 64 * KIB
WINDOW = 4 * MIB  # the largest, by default


@pytest.fixture
def others() -> Iterator[ThreadPoolExecutor]:
    """Threads for those who may hang; taken down last, when all faults are mended."""
    with ThreadPoolExecutor(READERS + 100) as made:
        yield made


def place_file(backing: FaultyBacking, name: str, content: bytes) -> None:
    """Make a file that may be shared: one that has just changed may change again unseen."""
    (backing.under / name).write_bytes(content)
    left_alone(backing.under / name)


def read_part(path: Path, start: int, size: int) -> bytes:
    """Read a part of a file through the kernel's cache, which reads ahead."""
    with open(path, "rb") as file:
        return os.pread(file.fileno(), size, start)


def test_200_readers_of_a_file_that_hangs(others: ThreadPoolExecutor, tmp_path: Path) -> None:
    """Half of them through the kernel's cache, half past it; all get what is right in the end."""
    content, small = run(1, READERS * PART // 4096), run(5, 40)
    with (
        over_faulty(tmp_path, "--budget=64M") as (backing, mount),
        requests_of(tmp_path, mount.path) as requests,
    ):
        place_file(backing, "stuck", content)
        (backing.under / "directory").mkdir()
        for number in range(20):
            (backing.under / f"other{number}").write_bytes(small)
            (backing.under / "directory" / str(number)).touch()
        backing.inject("stuck", "read", hang=True)
        parts: list[Future[bytes]] = [
            others.submit(
                read_direct if number % 2 else read_part, mount.path / "stuck", number * PART, PART
            )
            for number in range(READERS)
        ]
        # Those past the cache are a request each.
        wait_for("all hang", lambda: requests() >= READERS // 2 and backing.held("stuck"))

        def live() -> None:
            """What works with any file, cold ones above all."""
            for number in range(20):
                path = mount.path / f"other{number}"
                assert (read_direct(path, 0, MIB) if number % 2 else path.read_bytes()) == small
                (mount.path / f"new{number}").write_bytes(small)
                assert (mount.path / f"new{number}").read_bytes() == small
            names = sorted(os.listdir(mount.path / "directory"), key=int)
            assert names == [str(number) for number in range(20)]
            os.rename(mount.path / "new0", mount.path / "renamed")
            assert (mount.path / "stuck").stat().st_size == len(content)
            assert mount.status()["cache"]["threads_waiting"] > 0

        others.submit(live).result(SECONDS)
        assert not any(part.done() for part in parts)
        backing.mend()
        for number, part in enumerate(parts):
            assert part.result(SECONDS) == content[number * PART : (number + 1) * PART]
        assert mount.status()["failsafe"]["count"] == 0
        # The kernel may have asked for more than anybody waits for.
        wait_for("nobody waits", lambda: not mount.status()["cache"]["threads_waiting"])


@pytest.mark.parametrize("size", [MIB // 2, 64 * KIB])
def test_what_many_miss_at_once_is_read_once(
    others: ThreadPoolExecutor, size: int, tmp_path: Path
) -> None:
    content = run(1, MIB // 4096)
    with (
        over_faulty(tmp_path) as (backing, mount),
        requests_of(tmp_path, mount.path) as requests,
    ):
        place_file(backing, "file", content)
        starts = range(0, MIB, size)
        backing.inject("file", "read", hang=True)
        readers = [
            others.submit(read_direct, mount.path / "file", start, size)
            for start in starts
            for _ in range(32 // len(starts))
        ]
        wait_for("all have asked", lambda: requests() == 32)
        mount.status()  # answered after the daemon has taken up what was asked before
        backing.mend()
        for number, reader in enumerate(readers):
            start = number // (32 // len(starts)) * size
            assert reader.result(SECONDS) == content[start : start + size]
        check_read_once(backing.calls("file", "read"), len(content))
        found = mount.status()["cache"]
        assert found["shared_reads"] > 0
        assert found["backing_read_bytes"] == len(content)
        assert read_direct(mount.path / "file", 0, MIB) == content
        assert mount.status()["cache"]["backing_reads"] == found["backing_reads"]


def check_read_once(calls: list[tuple[int, int]], size: int) -> None:
    """Every byte of a file was asked for, and none twice."""
    end = 0
    for offset, count in sorted(calls):
        assert offset == end, sorted(calls)
        end += count
    assert end == size, sorted(calls)


@pytest.mark.parametrize("step", [4 * KIB, 64 * KIB])
def test_who_reads_in_order_is_read_ahead_of(step: int, tmp_path: Path) -> None:
    """In reads of up to a MiB, further and further, and nothing is read twice."""
    content = run(1, 12 * MIB // 4096)
    with over_faulty(tmp_path, "--budget=128M") as (backing, mount):
        place_file(backing, "file", content)
        fd = os.open(mount.path / "file", os.O_RDONLY | os.O_DIRECT)
        furthest, lead = 0, 0
        for start in range(0, len(content), step):
            assert os.pread(fd, step, start) == content[start : start + step]
            if start % MIB == 0:
                furthest = max(
                    (offset + size for offset, size in backing.calls("file", "read")), default=0
                )
                lead = max(lead, furthest - start)
        calls = backing.calls("file", "read")
        check_read_once(calls, len(content))
        assert MIB // 2 <= max(size for _, size in calls) <= MIB
        assert MIB <= lead <= WINDOW + 2 * MIB
        found = mount.status()["cache"]
        assert found["readahead_pages"] * mount.pool("cache")["page_size"] > 10 * MIB
        os.close(fd)


def test_who_reads_at_random_gets_what_is_asked_for(tmp_path: Path) -> None:
    """Also after it has read in order for a while."""
    content = run(1, 8 * MIB // 4096)
    with over_faulty(tmp_path) as (backing, mount):
        place_file(backing, "file", content)
        page = mount.pool("cache")["page_size"]
        fd = os.open(mount.path / "file", os.O_RDONLY | os.O_DIRECT)
        for start in range(0, 256 * KIB, page):
            assert os.pread(fd, page, start) == content[start : start + page]

        def all_is_read() -> bool:
            """What was asked for by the page, and what is read ahead; also what is not begun.

            More than the first page is asked for where the reader is ahead of the reading ahead.
            """
            found = mount.status()["cache"]
            asked_for = found["backing_reads"] - found["readahead_reads"]
            pages = asked_for + found["readahead_pages"]
            return bool(found["backing_read_bytes"] == page * pages)

        wait_for("nothing is under way", all_is_read)
        backing.forget()
        ahead = mount.status()["cache"]["readahead_pages"]
        # Backwards, each as far from the one before that it is none of its neighbours.
        starts = range(len(content) - 64 * KIB, 4 * MIB, -256 * KIB)
        for start in starts:
            assert os.pread(fd, page, start) == content[start : start + page]
        assert backing.calls("file", "read") == [(start, page) for start in starts]
        assert mount.status()["cache"]["readahead_pages"] == ahead
        os.close(fd)


def test_no_readahead_where_it_is_off(tmp_path: Path) -> None:
    content = run(1, MIB // 4096)
    with over_faulty(tmp_path, "-o", "readahead=0") as (backing, mount):
        place_file(backing, "file", content)
        fd = os.open(mount.path / "file", os.O_RDONLY | os.O_DIRECT)
        for start in range(0, MIB, 64 * KIB):
            assert os.pread(fd, 64 * KIB, start) == content[start : start + 64 * KIB]
        calls = [(start, 64 * KIB) for start in range(0, MIB, 64 * KIB)]
        assert backing.calls("file", "read") == calls
        assert mount.status()["cache"]["readahead_reads"] == 0
        os.close(fd)


def test_nobody_waits_for_what_is_read_ahead(others: ThreadPoolExecutor, tmp_path: Path) -> None:
    """Reading ahead hangs: whoever reads what lies before it is served, and then it is one miss."""
    content, wall = run(1, 4 * MIB // 4096), MIB
    with over_faulty(tmp_path) as (backing, mount):
        place_file(backing, "file", content)
        backing.inject("file", "read", hang=True, start=wall)
        fd = os.open(mount.path / "file", os.O_RDONLY | os.O_DIRECT)

        def read_to_the_wall() -> None:
            for start in range(0, wall - 256 * KIB, 16 * KIB):
                assert os.pread(fd, 16 * KIB, start) == content[start : start + 16 * KIB]

        others.submit(read_to_the_wall).result(SECONDS)
        wait_for("it reads ahead, and hangs", backing.held)
        beyond = others.submit(os.pread, fd, 64 * KIB, 2 * MIB)
        # A second reader of the same file, in its own order, is served as well.
        first = others.submit(read_direct, mount.path / "file", 0, 64 * KIB)
        assert first.result(SECONDS) == content[: 64 * KIB]
        assert not beyond.done()
        backing.mend()
        assert beyond.result(SECONDS) == content[2 * MIB :][: 64 * KIB]
        os.close(fd)


# --- cut while it is read ------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["behind", "through"])
@pytest.mark.parametrize("how", ["cut", "cut and extended"])
def test_a_file_is_cut_while_it_is_read(
    others: ThreadPoolExecutor, where: str, how: str, tmp_path: Path
) -> None:
    """Who had asked gets old bytes or new ones; whoever asks later gets the new ones alone.

    On a source in user space, one that is shorter behind the mount may be another file: ESTALE.
    """
    content, kept = run(1, 128), 100_001
    size = len(content) if how == "cut and extended" else kept
    new = content[:kept].ljust(size, b"\0")
    with (
        over_faulty(tmp_path) as (backing, mount),
        requests_of(tmp_path, mount.path) as requests,
    ):
        place_file(backing, "file", content)
        backing.inject("file", "read", hang=True)
        direct = others.submit(read_direct, mount.path / "file", 0, len(content))
        buffered = others.submit((mount.path / "file").read_bytes)
        wait_for("both wait", lambda: requests() >= 2 and backing.held())
        top = backing.under if where == "behind" else mount.path

        def cut() -> None:
            os.truncate(top / "file", kept)
            if how == "cut and extended":
                os.truncate(top / "file", size)

        # Through the mount, the kernel waits for the pages that are being read.
        cutting = others.submit(cut)
        wait_for(
            "it is cut", lambda: cutting.done() or os.stat(backing.under / "file").st_size == kept
        )
        backing.mend()
        cutting.result(SECONDS)
        for reader in (direct, buffered):
            error = reader.exception(SECONDS)
            if (where, how) == ("behind", "cut") and error is not None:
                assert isinstance(error, OSError)
                assert error.errno == errno.ESTALE
            else:
                check_mixed(reader.result(), content, new)
        wait([direct, buffered])
        check_new(backing, mount, new)


def check_mixed(found: bytes, old: bytes, new: bytes) -> None:
    """Every byte is the old or the new one at its place."""
    assert 100_001 <= len(found) <= len(old)
    kept = next((at for at in range(len(found)) if found[at] != old[at]), len(found))
    assert kept >= 100_001
    assert found[kept:] in (bytes(len(found) - kept), new[kept:])


def check_new(backing: FaultyBacking, mount: Mounted, new: bytes) -> None:
    assert (backing.under / "file").read_bytes() == new
    for _ in range(2):
        wait_for("the size", lambda: (mount.path / "file").stat().st_size == len(new))
        assert (mount.path / "file").read_bytes() == new
        assert read_direct(mount.path / "file", 0, len(new) + 1) == new
        drop_kernel_caches()
    assert mount.process.poll() is None
    assert mount.status()["failsafe"]["count"] == 0
