"""A page that could not be put back is kept, also for who was under way at that moment."""

import errno
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
import trio
from overflow_rig import PAGE, OverflowRig, overflow_rig, overflowed, pages, push_out, write
from page_data import run

from tmemfs.pages import codec
from tmemfs.supervise import keep
from tmemfs.swap import evictor
from tmemfs.swap.overflowing import OverflowingSwapVolume
from tmemfs.swap.swapfile import SwapFile
from tmemfs.swap.writebuffer import WriteBuffer

BUDGET = 8 << 20


async def do(result: Any) -> Any:
    return await result if isinstance(result, Coroutine) else result


class Disk:
    """The reads of an overflow file, of which the first one that is wanted stops until `go_on`."""

    def __init__(self, volume: OverflowingSwapVolume) -> None:
        self.go_on = trio.Event()
        self.reached = trio.Event()
        self._read = volume._file.read
        volume._file.read = self.read  # type: ignore[method-assign]
        self.stops = False

    async def read(self, first: int, count: int) -> list[bytes]:
        found = await self._read(first, count)
        if self.stops:
            self.stops = False
            self.reached.set()
            await self.go_on.wait()
        return found


async def all_outside(rig: OverflowRig) -> tuple[OverflowingSwapVolume, WriteBuffer, Disk]:
    """A volume of which ten pages are outside, and the first was used there."""
    volume = rig.add(4 << 20)
    buffer = WriteBuffer(volume)
    await write(volume, 0, pages(1, 10))
    await push_out(rig, volume)
    disk = Disk(volume)
    assert bytes(await do(buffer.read(0, PAGE))) == pages(1, 1)
    return volume, buffer, disk


def fail_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next page that is encoded find no memory."""
    before = codec.encode

    def encode(data: bytes) -> bytes:
        monkeypatch.setattr(codec, "encode", before)
        raise MemoryError("no memory to put it back")

    monkeypatch.setattr(codec, "encode", encode)


@pytest.mark.expects_log("swap read back failed")
async def test_a_read_under_way_gets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with overflow_rig(tmp_path, BUDGET) as rig:
        volume, buffer, disk = await all_outside(rig)
        found = []

        async def read_two() -> None:
            found.append(bytes(await do(buffer.read(0, 2 * PAGE))))

        async with trio.open_nursery() as nursery:
            disk.stops = True
            nursery.start_soon(read_two)
            await disk.reached.wait()
            fail_once(monkeypatch)
            assert bytes(await do(buffer.read(0, PAGE))) == pages(1, 1)
            assert 0 not in overflowed(volume)
            disk.go_on.set()
        assert found == [pages(1, 2)]
        assert bytes(await do(buffer.read(0, 2 * PAGE))) == pages(1, 2)


@pytest.mark.expects_log("swap read back failed")
async def test_a_write_to_a_part_of_it_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with overflow_rig(tmp_path, BUDGET) as rig:
        _, buffer, disk = await all_outside(rig)
        async with trio.open_nursery() as nursery:
            disk.stops = True
            nursery.start_soon(do, buffer.write(100, b"new"))
            await disk.reached.wait()
            fail_once(monkeypatch)
            assert bytes(await do(buffer.read(0, PAGE))) == pages(1, 1)
            disk.go_on.set()
        expected = pages(1, 1)[:100] + b"new" + pages(1, 1)[103:]
        assert bytes(await do(buffer.read(0, PAGE))) == expected
        buffer.settle()
        assert bytes(await do(buffer.read(0, PAGE))) == expected


def test_what_is_kept_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tmemfs.swap.volume import SwapVolume
    from tmemfs.swap.writebuffer import LIMIT
    from tmemfs.tmem import Core

    pool = Core(64 << 20).new_client("test").new_pool("s", kind="persistent")
    buffer = WriteBuffer(SwapVolume("s", 8 * LIMIT * PAGE, pool))

    def encode(data: bytes) -> bytes:
        raise ValueError("never")

    monkeypatch.setattr(codec, "encode", encode)
    data = run(1, 64)
    refused = 0
    for first in range(0, 8 * LIMIT, 64):
        try:
            assert buffer.write(first * PAGE, data) == len(data)
        except ValueError:
            refused += 1
    assert refused
    assert buffer.statistics()["write_buffer_bytes"] <= 2 * LIMIT * PAGE


@pytest.mark.expects_log("is tried again")
async def test_who_waits_for_room_is_found_again_after_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    rig = OverflowRig(tmp_path, BUDGET)
    await write(rig.add(4 << 20), 0, pages(1, 10))
    before = evictor._Round

    def fail() -> object:
        monkeypatch.setattr(evictor, "_Round", before)
        raise MemoryError

    monkeypatch.setattr(evictor, "_Round", fail)
    async with trio.open_nursery() as tasks:
        tasks.start_soon(keep, rig.evictor.run)
        with trio.fail_after(60):
            await rig.evictor.make_room()
        tasks.cancel_scope.cancel()
    assert evictor._Round is before
    rig.close()


@pytest.mark.expects_log("swap request failed and is tried again")
async def test_a_hole_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with overflow_rig(tmp_path, BUDGET) as rig:
        volume = rig.add(4 << 20)
        await write(volume, 0, pages(1, 10))
        opened = await SwapFile(WriteBuffer(volume)).open(os.O_RDWR)
        before = volume._pool.flush_many

        def fail(*_: int) -> int:
            monkeypatch.setattr(volume._pool, "flush_many", before)
            raise MemoryError

        monkeypatch.setattr(volume._pool, "flush_many", fail)
        await opened.fallocate(3, 0, 4 * PAGE)
        assert bytes(await do(opened.read(0, 5 * PAGE))) == bytes(4 * PAGE) + pages(5, 1)
        with pytest.raises(OSError, match=os.strerror(errno.EOPNOTSUPP)):
            await opened.fallocate(8, 0, 4 * PAGE)


async def test_figures_are_complete_while_the_task_is_at_work(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    async with overflow_rig(tmp_path, 32 << 20) as rig:
        buffer = WriteBuffer(rig.add(8 << 20))
        nursery.start_soon(buffer.run)
        for first in range(0, 800, 50):
            buffer.write(first * PAGE, run(first, 50))
            await trio.lowlevel.checkpoint()
            buffer.settle()
            assert buffer.statistics()["write_buffer_bytes"] == 0
