"""The directory ``.tmemfs`` in the root of every mount: figures, settings and swap volumes.

It can be reached by name and is not listed, so that no copy and no search of the mount falls into
it. A file of figures is made anew at each open; a setting is read in plain numbers and written as
people write sizes.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import stat
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

from tmemfs.cachefs.inodes import OWN_NUMBERS
from tmemfs.fuse.controlfiles import OpenControl, Text, inode_numbers, open_setting
from tmemfs.fuse.dropping import Dropper
from tmemfs.metrics import render
from tmemfs.mount import Mount

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
    """What is below ``.tmemfs``: figures and settings of *mount*, and its swap volumes by name."""

    dropper: Dropper
    """who drops what is asked for in ``drop``; to be set before that is written"""

    def __init__(self, mount: Mount) -> None:
        self._mount = mount
        self._started = time.time_ns()
        self._entries: dict[int, Entry] = {}
        self.directory = self._add(NAME, stat.S_IFDIR | 0o755)
        self._add_file(b"status.json", 0o444, lambda: Text(self._status_text()))
        self._add_file(b"metrics", 0o444, lambda: Text(render(mount.status())))
        self._add_file(b"drop", 0o200, lambda: Text("", self._drop))
        for setting in mount.settings:
            opener = functools.partial(open_setting, setting)
            self._add_file(os.fsencode(setting.name), 0o644, opener)
        swap = self._add(b"swap", stat.S_IFDIR | 0o755, self.directory)
        for file in mount.swaps.files:
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

    def _status_text(self) -> str:
        return json.dumps(self._mount.status(), indent=2) + "\n"

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
