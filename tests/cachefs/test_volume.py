"""A cache volume gives what the backing file holds, whatever it has kept of it."""

import errno
import os
import resource
import threading
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio
from as_root import tmpfs_at
from hypothesis import given, settings
from hypothesis import strategies as st
from page_data import run
from rig import ME, SECONDS, Rig, gate, left_alone

from tmemfs.cachefs.source import executor
from tmemfs.pages.locations import SIZE_BITS, SIZE_MASK
from tmemfs.tmem import MIN_BUDGET

PAGE = 4096

# -- against a plain file ---------------------------------------------------------------------

EDGES = st.sampled_from([0, 1, 4095, 4096, 4097, 16384, 65535, 65536, 131072])
PLACES = st.one_of(EDGES, st.integers(0, 200_000))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("read"), PLACES, st.integers(1, 140_000)),
        st.tuples(st.just("write"), PLACES, st.integers(1, 70_000)),
        st.tuples(st.just("append"), st.integers(1, 5000), st.just(0)),
        st.tuples(st.just("truncate"), PLACES, st.just(0)),
        st.tuples(st.just("reopen"), st.just(0), st.just(0)),
        st.tuples(st.just("behind"), PLACES, st.integers(1, 9000)),
    ),
    max_size=25,
)


@pytest.mark.parametrize("page_size", [4 << 10, 16 << 10, 64 << 10])
@settings(max_examples=60)
@given(steps=STEPS, seed=st.integers(0, 1 << 16))
async def test_like_a_plain_file(page_size: int, steps: list, seed: int) -> None:
    with TemporaryDirectory() as name:
        rig = Rig(Path(name), page_size=page_size)
        try:
            await _run_steps(rig, steps, seed)
        finally:
            rig.close()


async def _run_steps(rig: Rig, steps: list, seed: int) -> None:
    model = bytearray()
    noise = run(seed, 20)
    file = await rig.create("f")
    for number, (what, at, size) in enumerate(steps):
        data = noise[number : number + size % 71_000]
        if what == "read":
            assert await rig.read(file, at, size) == model[at : at + size]
        elif what == "write":
            assert await rig.volume.write(file, at, data, ME) == len(data)
            model.extend(bytes(max(at - len(model), 0)))
            model[at : at + len(data)] = data
        elif what == "append":
            data = noise[:at]
            await rig.volume.write(file, len(model), data, ME)
            model += data
        elif what == "truncate":
            await rig.volume.truncate(file, at, ME)
            model[at:] = b""
            model.extend(bytes(at - len(model)))
        else:
            await rig.volume.release(file)
            if what == "behind":
                with open(rig.root / "f", "r+b") as behind:
                    behind.seek(at)
                    behind.write(data)
                if data:
                    model.extend(bytes(max(at - len(model), 0)))
                    model[at : at + len(data)] = data
            file = await rig.open("f")
    assert await rig.read_pages(file) == model
    assert (rig.root / "f").read_bytes() == model
    await rig.volume.release(file)


async def test_the_end_of_the_file(rig: Rig) -> None:
    file = await rig.create("f", b"x" * 5000)
    for _ in range(2):  # once from the file, once out of the pool
        assert await rig.read(file, 4990, 100) == b"x" * 10
        assert await rig.read(file, 5000, 100) == b""
        assert await rig.read(file, 1 << 40, 100) == b""
    await rig.volume.release(file)


async def test_holes_are_zeros_and_take_nothing(rig: Rig) -> None:
    file = await rig.create("f")
    await rig.volume.truncate(file, 1 << 20, ME)
    assert await rig.read(file) == bytes(1 << 20)
    figures = rig.pool.statistics()
    assert figures["same_pages"] == figures["pages"] == 256
    assert figures["compr_data_size"] == 0
    await rig.volume.release(file)


async def test_read_again_comes_out_of_the_pool(rig: Rig) -> None:
    (rig.root / "f").write_bytes(run(1, 50))
    assert await rig.warm("f") == run(1, 50)
    before = rig.pool.counters.found_gets
    assert await rig.read_anew("f") == run(1, 50)
    assert rig.pool.counters.found_gets - before == 50


async def test_what_was_written_comes_out_of_the_pool(rig: Rig) -> None:
    file = await rig.create("f", run(2, 10) + b"a short end")
    before = rig.pool.counters.found_gets
    assert await rig.read(file) == run(2, 10) + b"a short end"
    assert rig.pool.counters.found_gets - before == 11
    await rig.volume.release(file)


async def test_a_pool_that_is_too_small(new_rig: Callable[..., Rig]) -> None:
    rig = new_rig(budget=MIN_BUDGET)
    content = run(3, 2000)
    (rig.root / "f").write_bytes(content)
    for _ in range(2):
        file = await rig.open("f")
        for at in range(0, len(content), 1 << 17):
            assert await rig.read(file, at, 1 << 17) == content[at : at + (1 << 17)]
        await rig.volume.release(file)
    assert rig.core.statistics()["reclaim"]["evicted_pgs"] > 0


async def test_a_pool_that_refuses_every_put(new_rig: Callable[..., Rig]) -> None:
    rig = new_rig(budget=MIN_BUDGET)
    other = rig.client.new_pool("swap", kind="persistent")
    assert other.put_many(1, 0, run(4, 1000)) < 1000
    content = run(5, 30)
    (rig.root / "f").write_bytes(content)
    file = await rig.open("f")
    for _ in range(2):
        assert await rig.read(file) == content
    await rig.volume.write(file, 10, b"written", ME)
    assert await rig.read(file) == content[:10] + b"written" + content[17:]
    assert rig.pool.counters.no_mem_puts > 0
    await rig.volume.release(file)


async def test_a_corrupt_page_is_read_again(rig: Rig) -> None:
    content = b"compressible " * 10_000
    (rig.root / "f").write_bytes(content)
    await rig.warm("f")
    file = await rig.open("f")
    owner = rig.pool.objects.find(file.data.object_id)
    location = owner.location(3)
    start, size = location >> SIZE_BITS, location & SIZE_MASK
    assert 8 < size < PAGE
    rig.pool.arena.view[start : start + size] = b"\xff" * size
    assert await rig.read(file) == content
    assert rig.pool.counters.corrupt_pages == 1
    assert await rig.read(file) == content
    assert rig.pool.counters.corrupt_pages == 1
    await rig.volume.release(file)


async def test_unlinked_and_closed_leaves_no_pages(rig: Rig) -> None:
    file = await rig.create("f", run(6, 10))
    await rig.volume.modify.unlink(rig.volume.inodes.root, b"f", ME)
    assert await rig.read(file) == run(6, 10)
    assert rig.pages() == 10
    await rig.volume.release(file)
    assert rig.pages() == 0
    (rig.root / "g").write_bytes(run(7, 10))
    await rig.warm("g")
    assert rig.pages() == 10
    await rig.volume.modify.unlink(rig.volume.inodes.root, b"g", ME)
    assert rig.pages() == 0


async def test_open_can_truncate(rig: Rig) -> None:
    (rig.root / "f").write_bytes(run(8, 10))
    await rig.warm("f")
    for flags in (os.O_RDWR, os.O_WRONLY, os.O_RDONLY):
        (rig.root / "f").write_bytes(run(8, 10))
        file = await rig.open("f", flags | os.O_TRUNC)
        assert os.stat(rig.root / "f").st_size == 0
        await rig.volume.release(file)
        assert await rig.read_anew("f") == b""


async def test_cut_bytes_do_not_come_back(rig: Rig) -> None:
    file = await rig.create("f", run(80, 10))
    await rig.volume.truncate(file, 10, ME)
    assert rig.pages() == 0
    await rig.volume.write(file, 12 * PAGE, b"end", ME)
    assert await rig.read_pages(file) == run(80, 1)[:10].ljust(12 * PAGE, b"\0") + b"end"
    await rig.volume.release(file)


async def test_a_file_that_is_created_where_one_was(rig: Rig) -> None:
    (rig.root / "f").write_bytes(run(9, 10))
    await rig.warm("f")
    await rig.volume.modify.unlink(rig.volume.inodes.root, b"f", ME)
    file = await rig.create("f")
    assert await rig.read(file) == b""
    await rig.volume.truncate(file, 10 * PAGE, ME)
    assert await rig.read(file) == bytes(10 * PAGE)
    await rig.volume.release(file)


async def test_created_and_moved_away_before_it_is_looked_at(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file that was made is the one that is open, whoever has its name by then."""
    create = rig.volume.modify.create

    async def create_and_lose(*args: object) -> int:
        fd = await create(*args)
        os.rename(rig.root / "f", rig.root / "moved")
        (rig.root / "f").write_bytes(b"of somebody else")
        return fd

    monkeypatch.setattr(rig.volume.modify, "create", create_and_lose)
    file = await rig.create("f", b"mine")
    assert file.inode.key[1] == os.stat(rig.root / "moved").st_ino
    assert await rig.read(file) == b"mine"
    assert (rig.root / "f").read_bytes() == b"of somebody else"
    await rig.volume.release(file)


# -- T19: changed behind the volume -----------------------------------------------------------


def rewrite(path: Path) -> bytes:
    with open(path, "r+b") as file:
        file.seek(2 * PAGE)
        file.write(b"CHANGED")
    return path.read_bytes()


def truncate(path: Path) -> bytes:
    os.truncate(path, 3 * PAGE + 5)
    return path.read_bytes()


def extend(path: Path) -> bytes:
    with open(path, "ab") as file:
        file.write(b"more" * 3000)
    return path.read_bytes()


def cut_and_extend(path: Path) -> bytes:
    size = os.stat(path).st_size
    os.truncate(path, 100)
    os.truncate(path, size)
    return path.read_bytes()


def rename_over(path: Path) -> bytes:
    path.with_name("new").write_bytes(run(99, 10))
    os.rename(path.with_name("new"), path)
    return path.read_bytes()


def rewrite_and_restore_the_time(path: Path) -> bytes:
    info = os.stat(path)
    rewrite(path)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    return path.read_bytes()


CHANGES = [rewrite, truncate, extend, cut_and_extend, rename_over, rewrite_and_restore_the_time]


@pytest.mark.parametrize("change", CHANGES)
async def test_t19_no_stale_byte_after_a_change_behind(
    rig: Rig, change: Callable[[Path], bytes]
) -> None:
    (rig.root / "f").write_bytes(run(10, 10))
    assert await rig.warm("f") == run(10, 10)
    now = change(rig.root / "f")
    assert not await rig.keeps("f")
    assert await rig.read_anew("f") == now != run(10, 10)


@pytest.mark.parametrize("change", [c for c in CHANGES if c is not rename_over])
async def test_t19_no_stale_byte_at_an_open_while_it_is_open(
    rig: Rig, change: Callable[[Path], bytes]
) -> None:
    (rig.root / "f").write_bytes(run(11, 10))
    await rig.warm("f")
    file = await rig.open("f")
    await rig.read(file)
    now = change(rig.root / "f")
    assert await rig.read_anew("f") == now
    # Who had it open before shares what is known now.
    assert await rig.read(file) == now
    await rig.volume.release(file)


async def test_t19_changed_within_one_tick_of_the_clock(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The times are the same before and after, as for two changes within a tick."""
    path = rig.root / "f"
    path.write_bytes(run(12, 10))
    times = os.stat(path)

    def same_times(fd: int) -> os.stat_result:
        # The clock of this filesystem is finer than others': its tick is made coarse here.
        info = os_fstat(fd)
        fields = {
            name: getattr(times if "time" in name else info, name)
            for name in dir(info)
            if name.startswith("st_")
        }
        return os.stat_result(info[:10], fields)

    os_fstat = os.fstat
    monkeypatch.setattr("tmemfs.cachefs.volume.os.fstat", same_times)
    assert await rig.read_anew("f") == run(12, 10)
    now = rewrite(path)
    assert await rig.read_anew("f") == now


async def test_t19_growing_file_is_followed(rig: Rig) -> None:
    (rig.root / "log").write_bytes(b"one\n")
    file = await rig.open("log", os.O_RDONLY)
    assert await rig.read(file) == b"one\n"
    for line in (b"two\n", b"three\n" * 2000, b"four\n"):
        before = os.stat(rig.root / "log").st_size
        with open(rig.root / "log", "ab") as log:
            log.write(line)
        assert await rig.read(file, before) == line
    await rig.volume.release(file)


async def test_t19_a_change_that_attributes_tell_of(rig: Rig) -> None:
    (rig.root / "f").write_bytes(run(13, 10))
    await rig.warm("f")
    file = await rig.open("f")
    now = rewrite(rig.root / "f")
    await rig.names.getattr(file.inode)
    assert await rig.read(file) == now
    await rig.volume.release(file)
    assert not await rig.keeps("f")


async def test_our_own_operations_are_no_change(rig: Rig) -> None:
    root = rig.volume.inodes.root
    (rig.root / "f").write_bytes(run(14, 10))
    await rig.warm("f")
    inode = await rig.inode("f")
    await rig.volume.modify.chmod(inode, 0o600, ME)
    await rig.volume.modify.setxattr(inode, b"user.x", b"1", ME)
    await rig.volume.modify.link(inode, root, b"g", ME)
    await rig.volume.modify.rename(root, b"f", root, b"h", 0, ME)
    await rig.volume.modify.unlink(root, b"g", ME)
    assert await rig.keeps("h")
    before = rig.pool.counters.found_gets
    assert await rig.read_anew("h") == run(14, 10)
    assert rig.pool.counters.found_gets - before == 10


@pytest.mark.parametrize("opened", [False, True])
async def test_a_change_behind_is_not_taken_for_our_own(rig: Rig, opened: bool) -> None:
    """Somebody else writes just before our chmod looks, or between its two looks."""
    (rig.root / "f").write_bytes(run(15, 10))
    await rig.warm("f")
    inode = await rig.inode("f")
    file = await rig.open("f") if opened else None
    async with inode.open() as fd:
        before = os.fstat(fd)
        now = rewrite(rig.root / "f")
        os.chmod(rig.root / "f", 0o600)
        rig.volume.modify._changed(inode, before, os.fstat(fd))
    left_alone(rig.root / "f")
    assert await rig.read_anew("f") == now
    if file is not None:
        await rig.volume.release(file)


# -- races ------------------------------------------------------------------------------------


@pytest.fixture
def slow(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Rig:
    """A volume whose backing reads always go to a thread, where they can be stopped."""
    rig.volume.executor._cannot_ask.add(os.stat(rig.root).st_dev)
    return rig


async def test_a_write_passes_a_read_miss(slow: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    (slow.root / "f").write_bytes(run(20, 4))
    file = await slow.open("f")
    async with trio.open_nursery() as nursery:
        with gate(monkeypatch, "_read_all") as reading:
            nursery.start_soon(slow.read, file)
            await reading.reached.wait()  # the old bytes have been read, and not been put
            await slow.volume.write(file, PAGE, b"new", ME)
    want = run(20, 4)[:PAGE] + b"new" + run(20, 4)[PAGE + 3 :]
    assert await slow.read_pages(file) == want
    await slow.volume.release(file)


@pytest.mark.parametrize("before", [True, False], ids=["before it writes", "after it wrote"])
@pytest.mark.parametrize("whole", [True, False], ids=["whole pages", "a part"])
async def test_a_read_passes_a_write(
    slow: Rig, monkeypatch: pytest.MonkeyPatch, before: bool, whole: bool
) -> None:
    (slow.root / "f").write_bytes(run(21, 4))
    file = await slow.open("f")
    await slow.read(file)
    new = run(22, 2) if whole else b"new"
    async with trio.open_nursery() as nursery:
        with gate(monkeypatch, "_write_all", before=before) as writing:
            nursery.start_soon(slow.volume.write, file, PAGE, new, ME)
            await writing.reached.wait()
            seen = await slow.read(file)
            assert seen == (slow.root / "f").read_bytes()
    want = run(21, 4)[:PAGE] + new + run(21, 4)[PAGE + len(new) :]
    assert await slow.read_pages(file) == want
    await slow.volume.release(file)


async def test_a_truncation_passes_a_read_miss(slow: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    (slow.root / "f").write_bytes(run(23, 8))
    file = await slow.open("f")
    async with trio.open_nursery() as nursery:
        with gate(monkeypatch, "_read_all") as reading:
            nursery.start_soon(slow.read, file)
            await reading.reached.wait()
            await slow.volume.truncate(file, PAGE + 10, ME)
            await slow.volume.truncate(file, 8 * PAGE, ME)
    assert await slow.read_pages(file) == run(23, 8)[: PAGE + 10].ljust(8 * PAGE, b"\0")
    await slow.volume.release(file)


@pytest.mark.parametrize("change", [rewrite, truncate, extend, cut_and_extend])
async def test_a_change_behind_passes_a_read_miss(
    slow: Rig, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], bytes]
) -> None:
    (slow.root / "f").write_bytes(run(24, 8))
    left_alone(slow.root / "f")
    file = await slow.open("f")
    async with trio.open_nursery() as nursery:
        with gate(monkeypatch, "_read_all") as reading:
            nursery.start_soon(slow.read, file)
            await reading.reached.wait()
            now = change(slow.root / "f")
    assert await slow.read_pages(file) == now
    await slow.volume.release(file)
    assert await slow.read_anew("f") == now


async def test_the_end_of_the_file_passes_a_read_miss(
    slow: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = run(25, 8)
    (slow.root / "f").write_bytes(content)
    file = await slow.open("f")
    seen = []

    async def read() -> None:
        seen.append(await slow.read(file))

    async with trio.open_nursery() as nursery:
        with gate(monkeypatch, "_read_all", before=True) as reading:
            nursery.start_soon(read)
            await reading.reached.wait()
            os.truncate(slow.root / "f", 100)
    assert seen == [content[:100]]
    await slow.volume.release(file)


async def test_an_unlink_passes_a_read_miss(slow: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    (slow.root / "f").write_bytes(run(26, 8))
    file = await slow.open("f")
    async with trio.open_nursery() as nursery:
        with gate(monkeypatch, "_read_all") as reading:
            nursery.start_soon(slow.read, file)
            await reading.reached.wait()
            await slow.volume.modify.unlink(slow.volume.inodes.root, b"f", ME)
    assert await slow.read_pages(file) == run(26, 8)
    await slow.volume.release(file)
    assert slow.pages() == 0


@pytest.mark.parametrize("before", [True, False])
async def test_two_writers_of_one_page(
    slow: Rig, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    (slow.root / "f").write_bytes(run(27, 3))
    file, other = await slow.open("f"), await slow.open("f")
    async with trio.open_nursery() as nursery:
        with gate(monkeypatch, "_write_all", before=before) as writing:
            nursery.start_soon(slow.volume.write, file, 0, run(28, 2), ME)
            await writing.reached.wait()
            writing._opened.set()  # the other one passes; the first is still on its way
            async with trio.open_nursery() as inner:
                inner.start_soon(slow.volume.write, other, PAGE, run(29, 2), ME)
                inner.start_soon(slow.read, other)
    assert await slow.read_pages(file) == (slow.root / "f").read_bytes()
    await slow.volume.release(file)
    await slow.volume.release(other)


class Turns:
    """Two calls of a function in their threads, each of which works and leaves when it is told."""

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function
        self.arrived: list[int] = []
        self.work, self.worked, self.leave = (
            [threading.Event(), threading.Event()] for _ in range(3)
        )

    def __call__(self, fd: int, buf: bytes, *rest: int) -> object:
        number = buf[0] - ord("A")
        trio.from_thread.run_sync(self.arrived.append, number)
        assert self.work[number].wait(SECONDS)
        result = self._function(fd, buf, *rest)
        self.worked[number].set()
        assert self.leave[number].wait(SECONDS)
        return result

    def end(self) -> None:
        """Let everybody go on, whatever has happened."""
        for event in (*self.work, *self.leave):
            event.set()


@pytest.mark.parametrize("works_first", [0, 1])
@pytest.mark.parametrize("leaves_first", [0, 1])
async def test_two_writers_in_every_order(
    slow: Rig, monkeypatch: pytest.MonkeyPatch, works_first: int, leaves_first: int
) -> None:
    """The one that writes last is the one whose bytes are there, and in the pool or nowhere."""
    (slow.root / "f").write_bytes(run(30, 3))
    files = [await slow.open("f"), await slow.open("f")]
    turns = Turns(executor._write_all)
    monkeypatch.setattr(executor, "_write_all", turns)
    done = [trio.Event(), trio.Event()]

    async def write(number: int) -> None:
        text = b"AB"[number : number + 1] * (2 * PAGE)
        await slow.volume.write(files[number], number * 100, text, ME)
        done[number].set()

    async with trio.open_nursery() as nursery:
        try:
            for number in (0, 1):
                nursery.start_soon(write, number)
                while number not in turns.arrived:
                    await trio.lowlevel.checkpoint()
            for number in (works_first, 1 - works_first):
                turns.work[number].set()
                await trio.to_thread.run_sync(turns.worked[number].wait)
            turns.leave[leaves_first].set()
            await done[leaves_first].wait()
            # While the other one is still on its way, either of the two may be seen.
            assert set(await slow.read(files[0], PAGE, PAGE)) <= set(b"AB")
        finally:
            turns.end()
    assert await slow.read_pages(files[0]) == (slow.root / "f").read_bytes()
    for file in files:
        await slow.volume.release(file)


async def test_a_change_behind_passes_a_slow_write(
    slow: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our own change of the times must not hide that of somebody else's."""
    (slow.root / "f").write_bytes(run(31, 10))
    await slow.warm("f")
    file = await slow.open("f")
    await slow.read(file)
    async with trio.open_nursery() as nursery:
        with gate(monkeypatch, "_write_all") as writing:
            nursery.start_soon(slow.volume.write, file, 7 * PAGE, b"ours", ME)
            await writing.reached.wait()
            rewrite(slow.root / "f")
            left_alone(slow.root / "f")
    await slow.volume.release(file)
    left_alone(slow.root / "f")
    assert await slow.read_anew("f") == (slow.root / "f").read_bytes()


async def test_a_cut_behind_passes_a_write(slow: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what was written nor anything else beyond the new end may come back later."""
    (slow.root / "f").write_bytes(run(32, 10))
    file = await slow.open("f")
    await slow.read(file)
    async with trio.open_nursery() as nursery:
        with gate(monkeypatch, "_write_all") as writing:
            nursery.start_soon(slow.volume.write, file, 0, run(33, 3), ME)
            await writing.reached.wait()
            os.truncate(slow.root / "f", 100)
    await slow.volume.write(file, 12 * PAGE, b"end", ME)
    want = run(33, 3)[:100].ljust(12 * PAGE, b"\0") + b"end"
    assert (slow.root / "f").read_bytes() == want
    assert await slow.read_pages(file) == want
    await slow.volume.release(file)


async def test_a_truncation_passes_a_write_that_extends(
    slow: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    (slow.root / "f").write_bytes(b"short")
    file = await slow.open("f")
    async with trio.open_nursery() as nursery:
        with gate(monkeypatch, "_write_all") as writing:
            nursery.start_soon(slow.volume.write, file, 0, run(34, 8), ME)
            await writing.reached.wait()
            await slow.volume.truncate(file, 10, ME)
    await slow.volume.write(file, 12 * PAGE, b"end", ME)
    want = run(34, 8)[:10].ljust(12 * PAGE, b"\0") + b"end"
    assert (slow.root / "f").read_bytes() == want
    assert await slow.read_pages(file) == want
    await slow.volume.release(file)


async def test_a_cancelled_read_leaves_everything_as_it_was(
    slow: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    (slow.root / "f").write_bytes(run(35, 8))
    file = await slow.open("f")
    async with trio.open_nursery() as nursery:
        with gate(monkeypatch, "_read_all") as reading:
            nursery.start_soon(slow.read, file)
            await reading.reached.wait()
            nursery.cancel_scope.cancel()
            reading.open()
    assert await slow.read_pages(file) == run(35, 8)
    assert (file.data.changing, file.data.opens) == (0, 1)
    await slow.volume.release(file)


async def test_a_cancelled_write_leaves_no_change_under_way(
    slow: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    (slow.root / "f").write_bytes(run(36, 8))
    file = await slow.open("f")
    await slow.read(file)
    async with trio.open_nursery() as nursery:
        with gate(monkeypatch, "_write_all") as writing:
            nursery.start_soon(slow.volume.write, file, 0, run(37, 2), ME)
            await writing.reached.wait()
            nursery.cancel_scope.cancel()
            writing.open()
    assert file.data.changing == 0
    assert await slow.read_pages(file) == (slow.root / "f").read_bytes()
    await slow.volume.release(file)


# -- writes that fail -------------------------------------------------------------------------


async def test_a_write_that_fails_leaves_a_miss(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    (rig.root / "f").write_bytes(run(40, 4))
    file = await rig.open("f")
    await rig.read(file)

    def fail(fd: int, buf: bytes, offset: int, flags: int) -> int:
        os.pwrite(fd, buf[:100], offset)  # some of it, as a disk that breaks
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr("tmemfs.cachefs.source.executor._write_all", fail)
        with pytest.raises(OSError, match="error") as caught:
            await rig.volume.write(file, PAGE, run(41, 2), ME)
    assert caught.value.errno == errno.EIO
    assert rig.pool.get_many(file.data.object_id, 1, 2) == [None, None]
    assert await rig.read_pages(file) == (rig.root / "f").read_bytes()
    assert file.data.changing == 0
    await rig.volume.release(file)


async def test_a_write_beyond_what_is_permitted_is_short(rig: Rig) -> None:
    file = await rig.create("f", run(42, 2))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 * PAGE + 100, hard))
    try:
        assert await rig.volume.write(file, 2 * PAGE, run(43, 3), ME) == PAGE + 100
        with pytest.raises(OSError, match="large") as caught:
            await rig.volume.write(file, 4 * PAGE, run(44, 1), ME)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG
    want = run(42, 2) + run(43, 3)[: PAGE + 100]
    assert (rig.root / "f").read_bytes() == want
    assert await rig.read_pages(file) == want
    await rig.volume.release(file)


@pytest.mark.root
async def test_a_full_disk(tmp_path: Path) -> None:
    with tmpfs_at(tmp_path / "tiny") as root:
        os.system(f"mount -o remount,size=64k {root}")
        rig = Rig(root)
        file = await rig.create("f", run(45, 4))
        written, failed = 4 * PAGE, False
        while not failed:
            try:
                written += await rig.volume.write(file, written, run(46, 3), ME)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                failed = True
            assert written < 1 << 20
        assert await rig.read_pages(file) == (root / "f").read_bytes()
        assert len(await rig.read(file)) == written
        await rig.volume.release(file)
        rig.close()


async def test_a_read_that_fails_is_told_and_tried_again(
    slow: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    (slow.root / "f").write_bytes(run(47, 4))
    file = await slow.open("f")

    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr("tmemfs.cachefs.source.executor._read_all", fail)
        with pytest.raises(OSError, match="error"):
            await slow.read(file)
    assert slow.pages() == 0
    assert await slow.read_pages(file) == run(47, 4)
    await slow.volume.release(file)
