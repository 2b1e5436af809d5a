"""What was acknowledged is read back at once, reaches the volume in order, and is never lost."""

import errno
import random
from collections.abc import Container, Coroutine, Iterator
from typing import Any

import pytest
import trio
from account import check_account
from page_data import page, run
from trio.testing import MockClock, wait_all_tasks_blocked

from tmemfs.linux.syscalls import FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE
from tmemfs.supervise import failsafe, keep
from tmemfs.swap.runs import runs
from tmemfs.swap.volume import PAGE_SIZE, SwapVolume
from tmemfs.swap.writebuffer import LIMIT, WriteBuffer
from tmemfs.tmem import MIN_BUDGET, Core, PersistentPool

PAGES = 2 * LIMIT


class Waiting(SwapVolume):
    """A volume that has no room until `room` is set, as one with an overflow file may be."""

    def __init__(self, name: str, size: int, pool: PersistentPool) -> None:
        super().__init__(name, size, pool)
        self.room = trio.Event()
        self.waiting = 0

    def write_now(self, offset: int, buf: bytes) -> bool:
        return False

    def write(self, offset: int, buf: bytes) -> Coroutine[Any, Any, int]:
        return self._write_later(offset, buf)

    async def _write_later(self, offset: int, buf: bytes) -> int:
        self.waiting += 1
        await self.room.wait()
        assert super().write_now(offset, buf)
        return len(buf)


@pytest.fixture
def core() -> Iterator[Core]:
    core = Core(64 << 20)
    yield core
    check_account(core)


@pytest.fixture
def pool(core: Core) -> PersistentPool:
    return core.new_client("test").new_pool("s", kind="persistent")


@pytest.fixture
def front(pool: PersistentPool) -> WriteBuffer:
    return WriteBuffer(SwapVolume("s", PAGES * PAGE_SIZE, pool))


def read(front: WriteBuffer, offset: int, size: int) -> bytes:
    found = front.read(offset, size)
    if isinstance(found, Coroutine):
        with pytest.raises(StopIteration) as ended:  # without having waited
            found.send(None)
        found = ended.value.value
    return bytes(found)


async def do(result: Any) -> Any:
    return await result if isinstance(result, Coroutine) else result


def test_a_write_is_there_before_the_volume_has_it(
    front: WriteBuffer, pool: PersistentPool
) -> None:
    data = run(1, 5)
    assert front.write(3 * PAGE_SIZE, data) == len(data)
    assert pool.statistics()["puts"] == 0
    assert read(front, 3 * PAGE_SIZE, len(data)) == data
    # Beside it, and across its pages.
    around = bytes(PAGE_SIZE) + data + bytes(PAGE_SIZE)
    assert read(front, 2 * PAGE_SIZE + 100, len(around) - 200) == around[100:-100]
    assert read(front, 4 * PAGE_SIZE + 7, 9) == data[PAGE_SIZE + 7 : PAGE_SIZE + 16]
    front.settle()
    assert pool.statistics()["good_puts"] == 5
    assert read(front, 3 * PAGE_SIZE, len(data)) == data


async def test_the_task_gives_it_to_the_volume(
    front: WriteBuffer, pool: PersistentPool, nursery: trio.Nursery
) -> None:
    nursery.start_soon(front.run)
    for index in range(100):
        front.write(2 * index * PAGE_SIZE, page(index))
    assert pool.statistics()["pages"] == 0
    await wait_all_tasks_blocked()
    assert pool.statistics()["pages"] == 100
    assert all(read(front, 2 * i * PAGE_SIZE, PAGE_SIZE) == page(i) for i in range(100))
    front.write(0, page(1000))
    await wait_all_tasks_blocked()
    assert pool.get(0, 0) == page(1000)


def test_no_more_than_the_limit_is_noted(front: WriteBuffer, pool: PersistentPool) -> None:
    chunk = run(1, 128)
    for first in range(0, LIMIT, 128):
        front.write(first * PAGE_SIZE, chunk)
    assert pool.statistics()["puts"] == 0
    front.write(LIMIT * PAGE_SIZE, chunk)
    assert pool.statistics()["puts"] == 128, "straight to the volume"
    for first in range(0, LIMIT + 128, 128):
        assert read(front, first * PAGE_SIZE, len(chunk)) == chunk


def test_beyond_the_end_is_refused(front: WriteBuffer) -> None:
    with pytest.raises(OSError, match="space") as caught:
        front.write((PAGES - 1) * PAGE_SIZE, run(1, 2))
    assert caught.value.errno == errno.ENOSPC
    assert read(front, (PAGES - 1) * PAGE_SIZE, PAGE_SIZE) == bytes(PAGE_SIZE)
    assert front.write(5, b"") == 0


async def test_what_finds_no_room_stays_and_is_tried_again(nursery: trio.Nursery) -> None:
    core = Core(MIN_BUDGET)
    client = core.new_client("test")
    pool, other = (client.new_pool(name, kind="persistent") for name in "ab")
    front = WriteBuffer(SwapVolume("a", PAGES * PAGE_SIZE, pool))
    front.write(0, run(1, 8))
    index = 0
    while other.put(0, index, page(index)):
        index += 1
    nursery.start_soon(front.run)
    await wait_all_tasks_blocked()
    assert pool.statistics()["good_puts"] < 8
    assert read(front, 0, 8 * PAGE_SIZE) == run(1, 8)
    # What is new is refused, as by the volume, and takes nothing with it.
    with pytest.raises(OSError, match="space"):
        await do(front.write(4 * PAGE_SIZE, run(50, 8)))
    assert read(front, 0, 12 * PAGE_SIZE) == run(1, 8) + bytes(4 * PAGE_SIZE)
    other.flush_object(0)
    front.write(20 * PAGE_SIZE, page(7))
    await wait_all_tasks_blocked()
    assert pool.statistics()["pages"] == 9
    assert read(front, 0, 8 * PAGE_SIZE) == run(1, 8)
    check_account(core)


async def test_the_newest_wins_over_one_that_is_still_on_its_way(
    pool: PersistentPool, nursery: trio.Nursery
) -> None:
    volume = Waiting("s", PAGES * PAGE_SIZE, pool)
    front = WriteBuffer(volume)
    nursery.start_soon(front.run)
    front.write(0, page(1))
    await wait_all_tasks_blocked()
    assert volume.waiting == 1
    front.write(0, page(2))
    assert bytes(await do(front.read(0, PAGE_SIZE))) == page(2)
    # One that cannot be noted, because it is no whole page, comes after both.
    nursery.start_soon(do, front.write(10, b"new"))
    await wait_all_tasks_blocked()
    front.settle()
    assert pool.statistics()["puts"] == 0, "somebody is at it, and has to come first"
    volume.room.set()
    await wait_all_tasks_blocked()
    assert read(front, 0, PAGE_SIZE) == page(2)[:10] + b"new" + page(2)[13:]
    assert pool.get(0, 0) == page(2)[:10] + b"new" + page(2)[13:]


async def test_a_hole_is_not_filled_by_what_was_noted_before(
    front: WriteBuffer, pool: PersistentPool
) -> None:
    front.write(0, run(1, 4))
    mode = FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE
    await front.fallocate(mode, PAGE_SIZE + 10, 2 * PAGE_SIZE)
    front.settle()
    data = run(1, 4)
    expected = data[: PAGE_SIZE + 10] + bytes(2 * PAGE_SIZE) + data[3 * PAGE_SIZE + 10 :]
    assert read(front, 0, 4 * PAGE_SIZE) == expected
    assert pool.statistics()["pages"] == 3
    front.write(8 * PAGE_SIZE, run(1, 2))
    await front.fallocate(0, 8 * PAGE_SIZE, 2 * PAGE_SIZE)
    assert read(front, 8 * PAGE_SIZE, 2 * PAGE_SIZE) == run(1, 2), "that was no hole"


async def test_a_hole_takes_what_has_no_room(nursery: trio.Nursery) -> None:
    core = Core(MIN_BUDGET)
    client = core.new_client("test")
    pool, other = (client.new_pool(name, kind="persistent") for name in "ab")
    front = WriteBuffer(SwapVolume("a", PAGES * PAGE_SIZE, pool))
    front.write(0, run(1, 8))
    index = 0
    while other.put(0, index, page(index)):
        index += 1
    await front.fallocate(FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 0, 8 * PAGE_SIZE)
    assert read(front, 0, 8 * PAGE_SIZE) == bytes(8 * PAGE_SIZE)
    front.settle()
    assert pool.statistics()["puts"] == 0


@pytest.mark.parametrize("seed", range(5))
async def test_like_a_run_of_bytes(front: WriteBuffer, seed: int) -> None:
    source = random.Random(seed)
    size = 64 * PAGE_SIZE
    model = bytearray(size)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(front.run)
        for step in range(400):
            first, count = source.randrange(60), source.randrange(1, 5)
            offset, data = first * PAGE_SIZE, run(step, count, kind=source.choice(["raw", "zero"]))
            if source.random() < 0.3:
                offset, data = offset + source.randrange(4096), data[: source.randrange(len(data))]
                data = data[: size - offset]
            match source.choice("wwwrrhst"):
                case "w":
                    assert await do(front.write(offset, data)) == len(data)
                    model[offset : offset + len(data)] = data
                case "r":
                    assert (
                        bytes(await do(front.read(offset, len(data))))
                        == (model[offset : offset + len(data)])
                    )
                case "h" if data:
                    await front.fallocate(FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, offset, len(data))
                    model[offset : offset + len(data)] = bytes(len(data))
                case "s":
                    front.settle()
                case "t":
                    await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert read(front, 0, size) == model


def test_runs() -> None:
    assert list(runs([])) == []
    assert list(runs([5])) == [(0, 1)]
    assert list(runs([1, 2, 3, 7, 9, 10])) == [(0, 3), (3, 1), (4, 2)]
    assert list(runs(range(5), most=2)) == [(0, 2), (2, 2), (4, 1)]


class Damaged(SwapVolume):
    """A volume of which some pages cannot be read, as if their overflow slots were damaged."""

    bad: Container[int] = ()

    def read(self, offset: int, size: int) -> bytes:
        found = b""
        while len(found) < size:
            if (offset + len(found)) // PAGE_SIZE in self.bad:
                if not found:
                    raise OSError(errno.EIO, "damaged")
                break
            step = min(PAGE_SIZE - (offset + len(found)) % PAGE_SIZE, size - len(found))
            found += bytes(do_now(super().read(offset + len(found), step)))
        return found


def do_now(found: Any) -> Any:
    assert not isinstance(found, Coroutine)
    return found


def test_a_page_that_is_written_again_is_not_asked_of_the_volume(pool: PersistentPool) -> None:
    volume = Damaged("s", PAGES * PAGE_SIZE, pool)
    front = WriteBuffer(volume)
    front.write(0, run(1, 8))
    front.settle()
    volume.bad = {2, 3, 6}
    assert read(front, 0, 8 * PAGE_SIZE) == run(1, 2), "up to the first bad one"
    with pytest.raises(OSError, match="damaged"):
        read(front, 3 * PAGE_SIZE, PAGE_SIZE)
    front.write(2 * PAGE_SIZE, run(50, 2))
    assert read(front, 2 * PAGE_SIZE, PAGE_SIZE) == page(50)
    assert read(front, 2 * PAGE_SIZE + 5, 2 * PAGE_SIZE - 10) == run(50, 2)[5:-5]
    whole = run(1, 2) + run(50, 2) + run(5, 2)
    assert read(front, 0, 8 * PAGE_SIZE) == whole
    assert read(front, 7, 5 * PAGE_SIZE) == whole[7 : 7 + 5 * PAGE_SIZE]
    with pytest.raises(OSError, match="damaged"):
        read(front, 6 * PAGE_SIZE, 2 * PAGE_SIZE)


def test_what_is_noted_holds_no_more_than_its_pages(front: WriteBuffer) -> None:
    """The request that a page came with may be of a megabyte, and the page alone be left of it."""
    request = run(1, 256)
    front.write(0, request)
    assert all(len(noted) == PAGE_SIZE for noted in front._noted.values())
    assert not any(isinstance(noted, memoryview) for noted in front._noted.values())
    assert front.statistics()["write_buffer_bytes"] == len(request)
    front.settle()
    assert front.statistics()["write_buffer_bytes"] == 0


@pytest.mark.expects_log("run failed and is tried again", "swap write buffer failed")
@pytest.mark.parametrize("error", [MemoryError(), ValueError("x"), OSError(errno.EIO, "y")])
async def test_what_could_not_be_stored_stays_and_is_tried_again(
    pool: PersistentPool,
    nursery: trio.Nursery,
    autojump_clock: MockClock,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    front = WriteBuffer(SwapVolume("s", PAGES * PAGE_SIZE, pool))
    failures, count = iter([error] * 3), failsafe.count
    before = SwapVolume.write_now

    def failing(volume: SwapVolume, offset: int, buf: bytes) -> bool:
        if one := next(failures, None):
            raise one
        return before(volume, offset, buf)

    monkeypatch.setattr(SwapVolume, "write_now", failing)
    front.write(0, run(1, 100))
    front.settle()  # one who wants figures is not told of it
    assert failsafe.count == count + 1
    nursery.start_soon(keep, front.run)
    await wait_all_tasks_blocked()
    assert front.statistics()["write_buffer_bytes"] == 100 * PAGE_SIZE
    assert read(front, 0, 100 * PAGE_SIZE) == run(1, 100)
    # Without another write.
    with trio.fail_after(60):
        while front.statistics()["write_buffer_bytes"]:
            await trio.sleep(0.01)
    assert failsafe.count == count + 3
    assert pool.get_many(0, 0, 100) == [page(n) for n in range(1, 101)]
