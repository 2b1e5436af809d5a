"""The swap volumes of a mount, put together, and the tasks that work for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import trio

from tmemfs.config import SwapSpec, least_budget
from tmemfs.native.lane import Lane
from tmemfs.supervise import keep
from tmemfs.swap.evictor import Evictor
from tmemfs.swap.overflowfile import OverflowFile
from tmemfs.swap.overflowing import OverflowingSwapVolume, WaitingSwapVolume
from tmemfs.swap.swapfile import LATE_CLOSE_S, SwapFile
from tmemfs.swap.volume import PAGE_SIZE, SwapVolume
from tmemfs.swap.writebuffer import WriteBuffer
from tmemfs.tmem import Client, Core, PersistentPool


class SwapVolumes:
    """A volume for each of *specs*, in pools of *client*, as those who use them see it.

    Somebody has to `run` it. Raises MountFailure where an overflow file cannot be had.
    """

    def __init__(self, core: Core, client: Client, specs: Sequence[SwapSpec]) -> None:
        beside = any(spec.overflow is not None for spec in specs)
        files: dict[PersistentPool, OverflowFile] = {}
        self._evictor = Evictor(core.writeback, files)
        self.files: list[SwapFile] = []
        self._lane: Lane | None = None
        self.least_budget = least_budget(specs)
        """what the budget of the mount has to be for these volumes, in bytes"""
        for spec in specs:
            overflows = spec.overflow is not None
            pool = client.new_pool(
                spec.name, kind="persistent", page_size=PAGE_SIZE, overflows=overflows
            )
            volume: SwapVolume
            if spec.overflow is not None:
                file = files[pool] = OverflowFile(spec.overflow, spec.size // PAGE_SIZE)
                volume = OverflowingSwapVolume(spec.name, spec.size, pool, file, self._evictor)
            elif beside:
                volume = WaitingSwapVolume(spec.name, spec.size, pool, self._evictor)
            else:
                volume = SwapVolume(spec.name, spec.size, pool)
            self.files.append(SwapFile(WriteBuffer(volume)))

    async def run(self) -> None:
        """Compress what was written, and take to disk what memory does not hold."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep, self._evictor.run)
            nursery.start_soon(keep, self._refill)
            for file in self.files:
                nursery.start_soon(keep, file.buffer.run)

    def use(self, lane: Lane) -> None:
        """Let *lane* read and write the volumes, as far as it can, from now on."""
        self._lane = lane

    async def _refill(self) -> None:
        """Find room for what the lane was given, when it has none left."""
        if self._lane is not None:
            async for missing in self._lane.missing():
                found = [await file.buffer.volume.refill(missing) for file in self.files]
                # Else it would go round and round while the budget is full.
                if any(found):
                    self._lane.poke_stage()

    async def in_use(self) -> list[str]:
        """Return the names of the volumes that somebody has open, a loop device for example."""
        with trio.move_on_after(LATE_CLOSE_S):
            for file in self.files:
                await file.closed()
        return [file.name for file in self.files if file.in_use]

    def settle(self) -> None:
        """Let the pools have what was written, so that their figures are complete."""
        for file in self.files:
            file.buffer.settle()
        volumes, before = [file.buffer.volume for file in self.files], None
        while self._lane is not None and (missing := self._lane.settle_stage()):
            staged = sum(volume.staged_pages for volume in volumes)
            if staged == before:
                break  # there is no room
            before = staged
            for volume in volumes:
                volume.make_ready(missing)

    async def fit(self) -> None:
        """Wait until enough pages are on disk, after the budget was lowered."""
        await self._evictor.settle()

    def statistics(self) -> list[dict[str, Any]]:
        """Return what each volume says of itself."""
        return [file.buffer.statistics() for file in self.files]

    def close(self) -> None:
        """Let go of the overflow files. The pools stay as they are."""
        for file in self.files:
            file.buffer.volume.close()
