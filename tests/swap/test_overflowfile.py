"""A swap volume with an overflow file: it holds many times the budget, and is slow, never wrong."""

import errno
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from account import check_account
from overflow_rig import (
    PAGE,
    OverflowRig,
    nothing_leaves,
    overflow_rig,
    overflowed,
    pages,
    push_out,
    read,
    write,
)
from page_data import KINDS, page, run
from trio.testing import wait_all_tasks_blocked

from tmemfs.swap.overflowfile import OverflowFile, checksum
from tmemfs.swap.overflowing import OverflowingSwapVolume
from tmemfs.tmem import MIN_BUDGET

MIB = 1 << 20
BUDGET_PAGES = MIN_BUDGET // PAGE


class Gate:
    """Stops the threads of an overflow file before they write or read, until it is opened."""

    def __init__(self, file: OverflowFile, name: str) -> None:
        self.reached = trio.Event()
        self._go_on = trio.Event()
        self._original = getattr(file, name)
        setattr(file, name, self._wait)

    async def _wait(self, *args: object) -> object:
        self.reached.set()
        with trio.CancelScope(shield=True):
            await self._go_on.wait()
        return await self._original(*args)

    def open(self) -> None:
        self._go_on.set()


async def filled(rig: OverflowRig, count: int, kind: str = "raw") -> OverflowingSwapVolume:
    """A volume of `count` pages, all of them written."""
    volume = rig.add(count * PAGE)
    for first in range(0, count, 64):
        await write(volume, first * PAGE, pages(first, min(64, count - first), kind))
    return volume


# --- much more than the budget -------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 256], ids=["page by page", "1 MiB"])
async def test_sixteen_times_the_budget(tmp_path: Path, step: int) -> None:
    """Of pages that do not compress: none is refused, and all of them are right."""
    count = 16 * BUDGET_PAGES
    async with overflow_rig(tmp_path) as rig:
        volume = rig.add(count * PAGE)
        for first in range(0, count, step):
            await write(volume, first * PAGE, run(first, step))
            assert rig.core._arena.charged_bytes <= MIN_BUDGET
        check_account(rig.core, pinned=True)
        assert 0 < count - volume._pool.overflow_pages < BUDGET_PAGES
        for first in range(0, count, 256):
            assert await read(volume, first * PAGE, MIB) == run(first, 256)
        told = volume.statistics()
        assert told["overflow_pages"] == volume._pool.overflow_pages
        assert told["overflow_errors"] == 0
        assert told["overflow_writes"] >= told["overflow_pages"]
        assert told["overflow_reads"] >= told["overflow_pages"]
        assert volume._pool.statistics()["no_mem_puts"] == 0
        assert rig.core.statistics()["reclaim"]["written_back_pages"] >= told["overflow_pages"]


async def test_several_volumes_share_the_smallest_budget(tmp_path: Path) -> None:
    """Each has segments that it fills, and tables: a large write has to go in pieces then."""
    async with overflow_rig(tmp_path) as rig:
        volumes = [rig.add(20 * MIB) for _ in range(6)]
        for first in range(0, 5120, 256):
            for number, volume in enumerate(volumes):
                data = run(first + number, 128) + pages(first + number, 128, "text")
                await write(volume, first * PAGE, data)
        for first in range(0, 5120, 256):
            for number, volume in enumerate(volumes):
                data = run(first + number, 128) + pages(first + number, 128, "text")
                assert await read(volume, first * PAGE, MIB) == data


async def test_a_volume_without_a_file_gets_the_room_of_one_that_has(tmp_path: Path) -> None:
    """All of it: it is refused only when nothing more can leave."""
    async with overflow_rig(tmp_path) as rig:
        volume, beside = await filled(rig, 4 * BUDGET_PAGES), rig.add_without_file(64 * MIB)
        written = 0
        with pytest.raises(OSError, match="space") as caught:
            while True:
                await write(beside, written * PAGE, run(written, 32))
                written += 32
        assert caught.value.errno == errno.ENOSPC
        assert written > BUDGET_PAGES // 2
        assert await read(beside, 0, written * PAGE) == run(0, written)
        assert await read(volume, 0, volume.size) == pages(0, 4 * BUDGET_PAGES)
        assert beside._pool.statistics()["no_mem_puts"] == 0


async def test_pages_of_zeros_take_nothing(tmp_path: Path) -> None:
    async with overflow_rig(tmp_path) as rig:
        volume = await filled(rig, 4 * BUDGET_PAGES)
        for first in range(0, 4 * BUDGET_PAGES, 256):
            await write(volume, first * PAGE, bytes(MIB))
        assert volume._pool.objects.pages == volume._pool.overflow_pages == 0
        assert rig.core._arena.charged_bytes == 0
        assert await read(volume, 5 * PAGE, MIB) == bytes(MIB)


async def test_holes(tmp_path: Path) -> None:
    """What is punched out of what is outside is zeros, and so are the parts of pages."""
    async with overflow_rig(tmp_path) as rig:
        volume = await filled(rig, 100)
        model = bytearray(pages(0, 100))
        for offset, length in (0, 10), (5000, 100), (8000, 20_000), (399 * 1024, 5000):
            await push_out(rig, volume)
            await volume.fallocate(3, offset, length)  # a hole
            model[offset : offset + length] = bytes(len(model[offset : offset + length]))
            assert await read(volume, 0, volume.size) == model


# --- any order -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
async def test_like_a_run_of_bytes_in_any_order(tmp_path: Path, seed: int) -> None:
    """Several at once, each in a part of its own that begins and ends within a page."""
    tasks, size = 4, 6 * MIN_BUDGET
    part = size // tasks - 1000
    model = bytearray(size)
    async with overflow_rig(tmp_path) as rig:
        volume = rig.add(size)

        async def work(number: int) -> None:
            source = random.Random(f"{seed} {number}")
            begin = number * part
            for _ in range(150):
                offset = begin + source.randrange(part)
                length = min(source.choice((1, 100, 4096, 9000, 70_000)), begin + part - offset)
                if source.random() < 0.5:
                    offset -= offset % PAGE if offset - offset % PAGE >= begin else 0
                await trio.lowlevel.checkpoint()
                match source.randrange(4):
                    case 0:
                        found = await read(volume, offset, length)
                        assert found == model[offset : offset + length]
                    case 1 if source.random() < 0.2:
                        await volume.fallocate(3, offset, length)
                        model[offset : offset + length] = bytes(length)
                    case _:
                        kind = source.choice((*KINDS, "raw", "raw"))
                        data = run(source.randrange(300), 18, kind=kind)[:length]
                        await write(volume, offset, data)
                        model[offset : offset + length] = data

        # Full from the start, so that everybody has to wait.
        model[:] = run(0, size // PAGE)
        for at in range(0, size, MIB):
            await write(volume, at, bytes(model[at : at + MIB]))
        async with trio.open_nursery() as nursery:
            for number in range(tasks):
                nursery.start_soon(work, number)
        for at in range(0, size, MIB):
            assert await read(volume, at, MIB) == model[at : at + MIB]
        assert volume.statistics()["overflow_errors"] == 0
        assert volume._pool.counters.corrupt_pages == 0


async def test_readers_see_one_version_or_the_other(tmp_path: Path) -> None:
    """Of pages that are written, leave and come back all the time."""
    count = 64
    async with overflow_rig(tmp_path) as rig:
        volume = await filled(rig, count)
        newest = [0] * count
        done = False

        async def rewrite() -> None:
            nonlocal done
            source = random.Random(1)
            for version in range(1, 300):
                index = source.randrange(count)
                newest[index] = version
                await write(volume, index * PAGE, page(version * 1000 + index))
                await trio.lowlevel.checkpoint()
            done = True

        async def push() -> None:
            while not done:
                await rig.evictor.make_room()

        async def look(seed: int) -> None:
            source = random.Random(seed)
            while not done:
                first, wanted = source.randrange(count), source.choice((1, 1, 9, 33))
                before = list(newest)
                found = await read(volume, first * PAGE, wanted * PAGE)
                for place in range(0, len(found), PAGE):
                    index = first + place // PAGE
                    versions = range(before[index], newest[index] + 1)
                    assert found[place : place + PAGE] in [
                        page(version * 1000 + index) for version in versions
                    ]
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(rewrite)
            nursery.start_soon(push)
            for seed in range(4):
                nursery.start_soon(look, seed)
        assert volume.statistics()["overflow_errors"] == 0
        assert volume._pool.counters.corrupt_pages == 0


# --- one after the other, at the worst moment ----------------------------------------------------


async def test_a_page_that_is_written_while_it_is_read(tmp_path: Path) -> None:
    async with overflow_rig(tmp_path) as rig:
        volume = await filled(rig, 100)
        await push_out(rig, volume)
        gate = Gate(rig.files[volume._pool], "read")
        found: list[bytes] = []

        async def look() -> None:
            found.append(await read(volume, 10 * PAGE, 3 * PAGE))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            await gate.reached.wait()
            await write(volume, 11 * PAGE, page(500))
            # It is outside again, and what is in its slot is neither what was nor what is wanted.
            await push_out(rig, volume)
            await volume.fallocate(3, 12 * PAGE, PAGE)
            gate.open()
        assert found == [page(10) + page(500) + bytes(PAGE)]
        assert volume.statistics()["overflow_errors"] == 0


async def test_two_parts_of_a_page_are_written_at_once(tmp_path: Path) -> None:
    """Both wait for the page, which is outside; neither undoes what the other did."""
    async with overflow_rig(tmp_path) as rig:
        volume = await filled(rig, 100)
        await push_out(rig, volume)
        gate = Gate(rig.files[volume._pool], "read")
        async with trio.open_nursery() as nursery:
            # The first needs both ends of its run; the one is written while it waits.
            nursery.start_soon(write, volume, 10 * PAGE + 100, b"a" * PAGE)
            nursery.start_soon(write, volume, 10 * PAGE, b"b" * 50)
            nursery.start_soon(write, volume, 11 * PAGE + 200, b"c" * 50)
            await wait_all_tasks_blocked()
            await write(volume, 11 * PAGE, page(700))
            gate.open()
        model = bytearray(pages(10, 2))
        model[PAGE:] = page(700)
        model[:50], model[100 : 100 + PAGE] = b"b" * 50, b"a" * PAGE
        model[PAGE + 200 : PAGE + 250] = b"c" * 50
        assert await read(volume, 10 * PAGE, 2 * PAGE) == model


async def test_reads_and_writes_while_pages_are_on_their_way(tmp_path: Path) -> None:
    """What is in memory is served from there; what was changed does not leave."""
    async with overflow_rig(tmp_path) as rig:
        volume = await filled(rig, 200)
        gate = Gate(rig.files[volume._pool], "write")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.evictor.make_room)
            await gate.reached.wait()
            assert volume.read(0, 200 * PAGE) == pages(0, 200)
            assert volume.write(5 * PAGE, page(505)) == PAGE
            assert volume.write(6 * PAGE + 10, b"part") == 4
            await volume.fallocate(3, 7 * PAGE, PAGE)
            gate.open()
        assert [index for index in range(4, 9) if index not in overflowed(volume)] == [5, 6, 7]
        model = bytearray(pages(0, 200))
        model[5 * PAGE : 6 * PAGE] = page(505)
        model[6 * PAGE + 10 : 6 * PAGE + 14] = b"part"
        model[7 * PAGE : 8 * PAGE] = bytes(PAGE)
        assert await read(volume, 0, 200 * PAGE) == model


async def test_writers_wait_for_room_and_all_of_them_go_on(tmp_path: Path) -> None:
    async with overflow_rig(tmp_path) as rig:
        volume = rig.add(16 * MIN_BUDGET)
        gate = Gate(rig.files[volume._pool], "write")
        written = 0

        async def put(first: int) -> None:
            nonlocal written
            await write(volume, first * PAGE, run(first, 64))
            written += 1

        async with trio.open_nursery() as nursery:
            for first in range(0, 64 * 40, 64):
                nursery.start_soon(put, first)
            await wait_all_tasks_blocked()
            assert 0 < written < 20, "the others wait"
            assert gate.reached.is_set()
            gate.open()
        assert written == 40
        for first in range(0, 64 * 40, 64):
            assert await read(volume, first * PAGE, 64 * PAGE) == run(first, 64)
        assert volume._pool.statistics()["no_mem_puts"] == 0


async def test_pages_leave_ahead_of_need(tmp_path: Path) -> None:
    """Between two writes, before the budget is full, and no further than to the low mark."""
    async with overflow_rig(tmp_path, 8 * MIN_BUDGET) as rig:
        volume = rig.add(16 * MIN_BUDGET)
        index = 0
        while not rig.core.writeback.needed:
            assert volume.write(index * PAGE, page(index)) == PAGE
            index += 1
        assert overflowed(volume) == []
        with trio.fail_after(60):
            while not rig.core.writeback.enough:
                await trio.sleep(0.001)
        assert 0 < volume._pool.overflow_pages < index / 2
        assert overflowed(volume) == list(range(volume._pool.overflow_pages)), "the oldest"


# --- back to memory ------------------------------------------------------------------------------


async def test_a_page_that_is_read_twice_comes_back(tmp_path: Path) -> None:
    async with overflow_rig(tmp_path) as rig:
        volume = await filled(rig, 100)
        await push_out(rig, volume)
        assert await read(volume, 10 * PAGE, 3 * PAGE) == pages(10, 3)
        assert volume._pool.overflow_pages == 100
        assert await read(volume, 11 * PAGE, 5) == page(11)[:5]
        assert overflowed(volume) == [*range(11), *range(12, 100)]
        reads = volume.statistics()["overflow_reads"]
        assert reads == 4
        assert volume.read(11 * PAGE, PAGE) == page(11), "without waiting"
        assert volume.statistics()["overflow_reads"] == reads


async def test_without_room_pages_stay_outside(tmp_path: Path) -> None:
    async with overflow_rig(tmp_path) as rig:
        volume = await filled(rig, 100)
        await push_out(rig, volume)
        other = rig.client.new_pool("other", kind="persistent")
        count = 0
        while rig.evictor.has_spare:
            assert other.put(1, count, page(count))
            count += 1
        for _ in range(3):
            assert await read(volume, 5 * PAGE, PAGE) == page(5)
        assert overflowed(volume) == list(range(100))
        other.flush_object(1)
        assert await read(volume, 5 * PAGE, PAGE) == page(5)
        assert overflowed(volume) == [*range(5), *range(6, 100)]


# --- beside others -------------------------------------------------------------------------------


async def test_t7_the_cache_gives_its_memory_and_gets_it_back(tmp_path: Path) -> None:
    async with overflow_rig(tmp_path, 2 * MIN_BUDGET) as rig:
        cache = rig.client.new_pool("cache", kind="ephemeral")

        def use_cache() -> int:
            """Put what a lively cache would; how many of its pages are there."""
            for first in range(0, 4 * BUDGET_PAGES, 16):
                cache.put_many(1, first, run(first, 16))
            return int(cache.statistics()["pages"])

        alone = use_cache()
        assert alone > 1.5 * BUDGET_PAGES
        volume = rig.add(16 * MIN_BUDGET)
        for first in range(0, 4 * BUDGET_PAGES, 64):
            await write(volume, first * PAGE, run(first, 64))
        assert rig.core.statistics()["reclaim"]["pers_ate_eph"] > BUDGET_PAGES
        beside = use_cache()
        # What is ahead of need is the cache's, as long as nobody needs it.
        assert 0 < beside < alone / 2
        assert await read(volume, 0, MIB) == run(0, 64) + run(64, 64) + run(128, 64) + run(192, 64)
        for first in range(0, 4 * BUDGET_PAGES, 256):
            await write(volume, first * PAGE, bytes(MIB))
        assert use_cache() == pytest.approx(alone, rel=0.02)


async def test_a_smaller_budget_pushes_pages_out(tmp_path: Path) -> None:
    async with overflow_rig(tmp_path, 8 * MIN_BUDGET) as rig:
        volume = await filled(rig, 6 * BUDGET_PAGES)
        assert overflowed(volume) == []
        rig.core.begin_budget(MIN_BUDGET)
        while rig.core.shrink():
            pass
        await rig.evictor.settle()
        await nothing_leaves(rig)
        check_account(rig.core)
        assert volume._pool.overflow_pages > 5 * BUDGET_PAGES
        assert await read(volume, 0, volume.size) == pages(0, 6 * BUDGET_PAGES)


# --- cancelled -----------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["read", "write", "make_room", "partial write"])
async def test_cancelling_leaves_the_account_right(tmp_path: Path, what: str) -> None:
    async with overflow_rig(tmp_path) as rig:
        volume = await filled(rig, 6 * BUDGET_PAGES)
        first = overflowed(volume)[0]
        calls: dict[str, Callable[[], object]] = {
            "read": lambda: read(volume, first * PAGE, 20 * PAGE),
            "write": lambda: write_much(volume),
            "make_room": rig.evictor.make_room,
            "partial write": lambda: write(volume, first * PAGE + 5, b"part" * 2000),
        }
        for rounds in range(12):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(calls[what])
                    for _ in range(rounds):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
            check_account(rig.core, pinned=True)
        # What was under way goes on and ends.
        await rig.evictor.make_room()
        await nothing_leaves(rig)
        check_account(rig.core)
        start = 5 * BUDGET_PAGES
        assert await read(volume, start * PAGE, MIB) == pages(start, 256)


async def write_much(volume: OverflowingSwapVolume) -> None:
    for first in range(0, 4 * BUDGET_PAGES, 256):
        await write(volume, first * PAGE, run(first + 1, 256))


async def test_what_is_cancelled_in_the_middle_of_a_batch_is_where_it_was(tmp_path: Path) -> None:
    rig = OverflowRig(tmp_path)
    volume = await filled(rig, 100)
    gate = Gate(rig.files[volume._pool], "write")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.evictor.run)
        nursery.start_soon(rig.evictor.make_room)
        await gate.reached.wait()
        check_account(rig.core, pinned=True)
        nursery.cancel_scope.cancel()
        gate.open()
    check_account(rig.core)
    assert await read(volume, 0, 100 * PAGE) == pages(0, 100)
    rig.close()


# --- the file ------------------------------------------------------------------------------------


async def test_the_file_alone(tmp_path: Path) -> None:
    file = OverflowFile(str(tmp_path / "f"), 1000)
    source = random.Random(3)
    slots = sorted(source.sample(range(1000), 600))
    told = await file.write([(slot, page(slot)) for slot in slots])
    assert told == [checksum(slot, page(slot)) for slot in slots]
    for slot in slots:
        assert await file.read(slot, 1) == [page(slot)]
    assert await file.write([]) == []
    # Longer than any buffer, in one piece.
    assert await file.write([(slot, page(slot)) for slot in range(1000)])
    assert b"".join(await file.read(0, 1000)) == pages(0, 1000)
    assert file.statistics() == {
        "overflow": str(tmp_path / "f"),
        "overflow_writes": 1600,
        "overflow_reads": 1600,
        "overflow_errors": 0,
    }
    file.close()


def test_a_page_in_another_slot_is_not_the_same_page() -> None:
    assert checksum(1, page(1)) != checksum(2, page(1))
    assert checksum(1, page(1)) != checksum(1, page(2))
    assert 0 <= checksum((1 << 32) - 1, bytes(PAGE)) < 1 << 47


async def test_the_end_of_the_volume(tmp_path: Path) -> None:
    async with overflow_rig(tmp_path) as rig:
        volume = await filled(rig, 100)
        await push_out(rig, volume)
        assert await read(volume, volume.size - 10, 100) == page(99)[-10:]
        assert await read(volume, volume.size, 100) == b""
        with pytest.raises(OSError, match="space") as caught:
            volume.write(volume.size - 2, b"end")
        assert caught.value.errno == errno.ENOSPC
        await write(volume, volume.size - 3, b"end")
        await write(volume, 100, b"")
        assert await read(volume, volume.size - PAGE, PAGE) == page(99)[:-3] + b"end"
