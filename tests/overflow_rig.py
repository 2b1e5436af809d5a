"""A swap volume with a real overflow file and the task that fills it, without FUSE."""

import os
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from account import check_account
from page_data import page

from tmemfs.swap.evictor import Evictor
from tmemfs.swap.overflowfile import OverflowFile
from tmemfs.swap.overflowing import OverflowingSwapVolume, WaitingSwapVolume
from tmemfs.swap.slots import FIRST
from tmemfs.tmem import MIN_BUDGET, Core, PersistentPool

PAGE = 4096


class OverflowRig:
    """Volumes over one core, each with an overflow file in a directory, and their spiller."""

    def __init__(self, directory: Path, budget: int = MIN_BUDGET) -> None:
        self.directory = directory
        self.core = Core(budget, capacity=max(budget, 16 * MIN_BUDGET))
        self.client = self.core.new_client("test")
        self.files: dict[PersistentPool, OverflowFile] = {}
        self.evictor = Evictor(self.core.writeback, self.files)
        self.volumes: list[WaitingSwapVolume] = []

    def add(self, size: int, path: str | Path | None = None) -> OverflowingSwapVolume:
        """Another volume; its file is in the directory unless `path` is another one."""
        name = f"swap{len(self.volumes)}"
        file = OverflowFile(str(path or self.directory / name), size // PAGE)
        pool = self.client.new_pool(name, kind="persistent", overflows=True)
        self.files[pool] = file
        volume = OverflowingSwapVolume(name, size, pool, file, self.evictor)
        self.volumes.append(volume)
        return volume

    def add_without_file(self, size: int) -> WaitingSwapVolume:
        """Another volume, that does not overflow."""
        name = f"swap{len(self.volumes)}"
        pool = self.client.new_pool(name, kind="persistent")
        volume = WaitingSwapVolume(name, size, pool, self.evictor)
        self.volumes.append(volume)
        return volume

    def close(self) -> None:
        """End it; whatever the test has done, the figures must add up."""
        for volume in self.volumes:
            volume.close()
        check_account(self.core)
        self.core.close()


@asynccontextmanager
async def overflow_rig(directory: Path, budget: int = MIN_BUDGET) -> AsyncIterator[OverflowRig]:
    """A rig whose spiller runs."""
    rig = OverflowRig(directory, budget)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.evictor.run)
            yield rig
            nursery.cancel_scope.cancel()
    finally:
        rig.close()


async def write(volume: WaitingSwapVolume, offset: int, data: bytes) -> None:
    """Write, waiting where the volume has to."""
    done = volume.write(offset, data)
    assert (await done if isinstance(done, Coroutine) else done) == len(data)


async def read(volume: WaitingSwapVolume, offset: int, size: int) -> bytes:
    """Read, waiting where the volume has to; all that is there, as the kernel does."""
    found = b""
    while len(found) < size and offset + len(found) < volume.size:
        some: Any = volume.read(offset + len(found), size - len(found))
        found += bytes(await some if isinstance(some, Coroutine) else some)
    return found


def overflowed(volume: OverflowingSwapVolume) -> list[int]:
    """The pages that are in the file."""
    return list(volume._pool.checksums(0, 0, volume.size // PAGE))


async def push_out(rig: OverflowRig, volume: OverflowingSwapVolume, *, keep: int = 0) -> None:
    """Let pages leave until no more than `keep` of the volume are in memory."""
    while volume._pool.objects.pages - volume._pool.overflow_pages > keep:
        assert await rig.evictor.make_room()


async def nothing_leaves(rig: OverflowRig) -> None:
    """Wait until no page is on its way."""
    with trio.fail_after(60):
        while any(s.pins for p in rig.files for log in p.logs() for s in log.segments.values()):
            await trio.sleep(0.001)


def damage(path: Path, slot: int, data: bytes = b"not what was there") -> None:
    """Write into a slot behind the volume's back."""
    with open(path, "r+b") as file:
        file.seek(FIRST + slot * PAGE + 100)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def pages(first: int, count: int, kind: str = "raw") -> bytes:
    return b"".join(page(number, kind=kind) for number in range(first, first + count))
