"""What one mount is, without FUSE: a core, a cache volume, swap volumes, and what may be changed.

The daemon makes one and runs it; the control files below ``.tmemfs`` show it; tests build it alone.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import trio

from tmemfs import __version__, supervise
from tmemfs.cachefs.source.filesystems import kind_of
from tmemfs.cachefs.trace import Trace
from tmemfs.cachefs.volume import CacheVolume
from tmemfs.config import LARGEST_READAHEAD, MountConfig
from tmemfs.native.lane import Lane
from tmemfs.pages import reader
from tmemfs.supervise import Failsafe
from tmemfs.swap import hardening, safety
from tmemfs.swap.safety import Step
from tmemfs.swap.volumes import SwapVolumes
from tmemfs.tmem import Core


@dataclass(frozen=True, slots=True)
class Setting:
    """A size in bytes that can be changed while in use, from *least* to *most*."""

    name: str
    get: Callable[[], int]
    set: Callable[[int], Awaitable[None] | None]
    least: int
    most: int

    def as_dict(self) -> dict[str, int]:
        """The setting as the status shows it."""
        return {"value": self.get(), "least": self.least, "most": self.most}


class Mount:
    """The volumes *cache* and *swaps* on one *core*, and the *steps* that make swap safe.

    *about* is what the status tells first. Whoever makes one has to `run` it, and to `close` it.
    """

    def __init__(
        self,
        core: Core,
        cache: CacheVolume,
        swaps: SwapVolumes,
        about: dict[str, Any],
        *,
        steps: list[Step] | None = None,
        failsafe: Failsafe = supervise.failsafe,
    ) -> None:
        self.core = core
        self.cache = cache
        self.swaps = swaps
        self.steps = steps or []
        self.failsafe = failsafe
        self.lane: Lane | None = None
        """what answers reads without us; the daemon has it, while it serves"""
        self.discards = False
        """whether what is freed leaves the swap volumes; the daemon knows, once it serves"""
        least = max(core.smallest_budget, swaps.least_budget)
        self.settings = (
            Setting("budget", lambda: core.budget, self.set_budget, least, core.capacity),
            Setting(
                "readahead", lambda: cache.readahead, self._set_readahead, 0, LARGEST_READAHEAD
            ),
        )
        self._about = about
        self._since = time.monotonic()
        _statm(os.getpid())

    async def run(self) -> None:
        """Do what goes on as long as the mount does: for the cache, and for the swap volumes."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervise.keep, self.cache.run)
            nursery.start_soon(supervise.keep, self.swaps.run)

    def use(self, lane: Lane | None) -> None:
        """Let *lane* answer what it can, until the mount is closed; None where there is none."""
        self.lane = lane
        if lane is not None:
            self.cache.use(lane)
            self.swaps.use(lane)

    def close(self) -> None:
        """Close what is open, and give all memory back."""
        self.cache.close()
        self.swaps.close()
        self.core.close()

    async def set_budget(self, size: int) -> None:
        """Change the budget to *size* bytes, and return when memory has come down to it.

        Raises `BudgetError`, and `BudgetInUse` where it does not hold the persistent pages.
        """
        self.swaps.settle()
        self.core.begin_budget(size)
        while self.core.shrink():
            # A large step down is made in slices, so that nobody else waits for it.
            await trio.lowlevel.checkpoint()
        await self.swaps.fit()
        for _ in safety.touching(self.core.warm_up):
            await trio.lowlevel.checkpoint()

    def status(self) -> dict[str, Any]:
        """Return everything there is to say; ``memory``, ``pools`` and ``reclaim`` are numbers."""
        self.swaps.settle()
        figures = self.core.statistics()
        figures["memory"]["rss_bytes"] = _resident()
        return {
            **self._about,
            "uptime_seconds": round(time.monotonic() - self._since, 3),
            **figures,
            "swaps": self.swaps.statistics(),
            "knobs": {setting.name: setting.as_dict() for setting in self.settings},
            "cache": self.cache.statistics(),
            "failsafe": self.failsafe.statistics(),
            "discard": self.discards,
            "lane": self.lane and self.lane.statistics(),
            "safety": [step.as_dict() for step in self.steps],
        }

    def _set_readahead(self, size: int) -> None:
        self.cache.readahead = size


def build(config: MountConfig, root: int, descriptors: int) -> Mount:
    """Return the mount that *config* describes, over the directory that is open as *root*.

    Up to *descriptors* of the source may be open for inodes, and as many for open files. The mount
    owns *root*. Raises a TmemfsError where the memory or an overflow file cannot be had.
    """
    if not config.native:
        reader.native = None
    core, steps = hardening.safe_core(config)
    client = core.new_client("mount")
    cache = CacheVolume(
        root,
        client.new_pool("cache", kind="ephemeral", page_size=config.page_size),
        kind=kind_of(root),
        descriptors=descriptors,
        open_files=descriptors,
        serves_swap=bool(config.swaps),
        mode=config.cache,
        attr_ttl=config.attr_timeout,
        entry_ttl=config.entry_timeout,
        writeback=config.writeback,
        readahead=config.readahead,
        noatime=config.noatime,
        trace=Trace(config.trace, config.page_size) if config.trace else None,
    )
    about = {
        "version": __version__,
        "pid": os.getpid(),
        "source": config.source,
        "mountpoint": config.mountpoint,
        "log": config.log or ("stderr" if config.foreground else "syslog"),
        "store": core.storage.kind,
        "native_reader": reader.native is not None,
    }
    return Mount(core, cache, SwapVolumes(core, client, config.swaps), about, steps=steps)


@functools.cache
def _statm(process: int) -> int:
    """Held open: figures are wanted above all when there are no descriptors any more."""
    return os.open(f"/proc/{process}/statm", os.O_RDONLY | os.O_CLOEXEC)


def _resident() -> int:
    return int(os.pread(_statm(os.getpid()), 256, 0).split()[1]) * os.sysconf("SC_PAGE_SIZE")
