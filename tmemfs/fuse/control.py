"""The directory ``.tmemfs`` in the root of every mount: figures, knobs and swap volumes.

It can be reached by name and is not listed, so that no copy and no search of the mount falls into
it. A file of figures is made anew at each open; a knob is read in plain numbers and written as
people write sizes.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import stat
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import trio

from tmemfs import safety
from tmemfs.fuse.controlfiles import Knob, OpenControl, Text, inode_numbers
from tmemfs.fuse.dropping import Dropper
from tmemfs.fuse.inodes import OWN_NUMBERS
from tmemfs.fuse.metrics import render
from tmemfs.tmem import Core
from tmemfs.volumes.swaps import Swaps

NAME = b".tmemfs"


@dataclass(slots=True)
class Entry:
    """One file (with `opener`) or directory (without) below ``.tmemfs``."""

    number: int
    name: bytes
    mode: int
    size: int = 0
    opener: Callable[[int], Awaitable[OpenControl]] | None = None
    children: list[Entry] = field(default_factory=list)


class Control:
    """What is below ``.tmemfs``: *core*'s figures and budget, other *knobs*, and *swaps* by name.

    *about* is what else the status tells: version, pid, source, mountpoint; *extra* is asked for
    what it has to say each time.
    """

    dropper: Dropper
    """who drops what is asked for in ``drop``; to be set before that is written"""

    def __init__(
        self,
        core: Core,
        swaps: Swaps,
        about: dict[str, Any],
        extra: Callable[[], dict[str, Any]],
        knobs: Sequence[Knob] = (),
    ) -> None:
        self._core = core
        self._swaps = swaps
        self._about = about
        self._extra = extra
        _statm(os.getpid())
        self._since = time.monotonic()
        self._started = time.time_ns()
        self._entries: dict[int, Entry] = {}
        self.directory = self._add(NAME, stat.S_IFDIR | 0o755)
        self._add_file(b"status.json", 0o444, lambda: Text(self._status_text()))
        self._add_file(b"metrics", 0o444, lambda: Text(render(self.status())))
        self._add_file(b"drop", 0o200, lambda: Text("", self._drop))
        least = max(core.smallest_budget, swaps.least_budget)
        budget = Knob("budget", lambda: core.budget, self._set_budget, least, core.capacity)
        self._knobs = (budget, *knobs)
        for knob in self._knobs:
            self._add_file(os.fsencode(knob.name), 0o644, knob.open)
        swap = self._add(b"swap", stat.S_IFDIR | 0o755, self.directory)
        for file in swaps.files:
            entry = self._add(os.fsencode(file.name), stat.S_IFREG | 0o600, swap)
            entry.size = file.size
            entry.opener = file.open

    def __contains__(self, number: int) -> bool:
        return number in self._entries

    def entry(self, number: int) -> Entry:
        """Return the entry that the kernel calls *number*."""
        return self._entries[number]

    def lookup(self, number: int, name: bytes) -> Entry:
        """Return the entry *name* in the directory *number*. Raises ENOENT or ENOTDIR."""
        for child in self.list(number):
            if child.name == name:
                return child
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)

    def list(self, number: int) -> Iterator[Entry]:
        """Yield what is in the directory *number*. Raises ENOTDIR."""
        entry = self._entries[number]
        if entry.opener is not None:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        return iter(entry.children)

    async def open(self, number: int, flags: int) -> OpenControl:
        """Open a file with the *flags* of open(2). Raises EISDIR, and ETXTBSY for swap in use."""
        opener = self._entries[number].opener
        if opener is None:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        return await opener(flags)

    def stat(self, entry: Entry) -> os.stat_result:
        """Return the attributes of *entry*: the daemon's user owns it."""
        now = self._started
        links = 2 + sum(child.opener is None for child in entry.children)
        return os.stat_result(
            (
                entry.mode,
                entry.number,
                0,
                1 if entry.opener else links,
                os.geteuid(),
                os.getegid(),
                entry.size,
                *[now // 1_000_000_000] * 3,
            ),
            {
                "st_blksize": 4096,
                "st_blocks": -(-entry.size // 512),
                "st_rdev": 0,
                **{f"st_{time}time_ns": now for time in "amc"},
            },
        )

    def status(self) -> dict[str, Any]:
        """Return everything there is to say; ``memory``, ``pools`` and ``reclaim`` are numbers."""
        self._swaps.settle()
        figures = self._core.statistics()
        figures["memory"]["rss_bytes"] = _resident()
        uptime = round(time.monotonic() - self._since, 3)
        return {
            **self._about,
            "uptime_seconds": uptime,
            **figures,
            "swaps": self._swaps.statistics(),
            "knobs": {knob.name: knob.as_dict() for knob in self._knobs},
            **self._extra(),
        }

    def _status_text(self) -> str:
        return json.dumps(self.status(), indent=2) + "\n"

    async def _set_budget(self, size: int) -> None:
        self._swaps.settle()
        self._core.begin_budget(size)
        while self._core.shrink():
            # A large step down is made in slices, so that nobody else waits for it.
            await trio.lowlevel.checkpoint()
        await self._swaps.fit()
        for _ in safety.touching(self._core.warm_up):
            await trio.lowlevel.checkpoint()

    async def _drop(self, text: str) -> None:
        numbers = inode_numbers(text)
        if numbers is None:
            await self.dropper.drop_all()
        else:
            await self.dropper.drop(numbers)

    def _add(self, name: bytes, mode: int, parent: Entry | None = None) -> Entry:
        entry = Entry(OWN_NUMBERS + len(self._entries), name, mode)
        self._entries[entry.number] = entry
        if parent is not None:
            parent.children.append(entry)
        return entry

    def _add_file(self, name: bytes, mode: int, opener: Callable[[], OpenControl]) -> None:
        async def opened(flags: int) -> OpenControl:
            return opener()

        self._add(name, stat.S_IFREG | mode, self.directory).opener = opened


@functools.cache
def _statm(process: int) -> int:
    """Held open: figures are wanted above all when there are no descriptors any more."""
    return os.open(f"/proc/{process}/statm", os.O_RDONLY | os.O_CLOEXEC)


def _resident() -> int:
    return int(os.pread(_statm(os.getpid()), 256, 0).split()[1]) * os.sysconf("SC_PAGE_SIZE")
