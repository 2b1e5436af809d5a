"""Open directories, and how they are listed: in parts, as large as the kernel has room for."""

from __future__ import annotations

import pyfuse3

from tmemfs.cachefs.inode import Inode
from tmemfs.cachefs.names import Found
from tmemfs.cachefs.volume import CacheVolume
from tmemfs.fuse import control
from tmemfs.fuse.control import Control
from tmemfs.fuse.entries import Entries, only_a_name

_DOTS = (b".", b"..")
# Names that are looked at in one go, in less than a slice.
_AT_ONCE = 8


class Directory:
    """The open directory of an inode *number*: its names as they were, so that offsets hold."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.names = b""
        """each with a NUL after it; the offset of a name is where it begins here"""

    def part(self, offset: int, most: int) -> list[tuple[bytes, int]]:
        """Return up to *most* names from *offset* on, each with the offset of the next."""
        found: list[tuple[bytes, int]] = []
        while len(found) < most and (end := self.names.find(b"\0", offset)) >= 0:
            found.append((self.names[offset:end], end + 1))
            offset = end + 1
        return found


class Lister:
    """Lists the directories of *volume*, and those of the machine room."""

    def __init__(
        self,
        volume: CacheVolume,
        machine_room: Control,
        entries: Entries,
    ) -> None:
        self._volume = volume
        self._control = machine_room
        self._inodes = volume.inodes
        self._entries = entries

    async def read(self, directory: Directory, start: int, token: pyfuse3.ReaddirToken) -> None:
        """Reply with names of *directory* from the offset *start* on."""
        number = directory.number
        if number in self._control:
            self._list_own(directory, start, token)
            return
        parent = self._inodes.inode(number)
        if start == 0:
            names = await self._volume.names.listdir(parent)
            if number == pyfuse3.ROOT_INODE:
                names = names.replace(b"\0%b\0" % control.NAME, b"\0", 1)
            directory.names = names
        told: list[Found] = []
        try:
            await self._list(directory, parent, start, token, told)
        finally:
            self._volume.prefetcher.listed(parent, told, first=start == 0)

    async def _list(
        self,
        directory: Directory,
        parent: Inode,
        start: int,
        token: pyfuse3.ReaddirToken,
        told: list[Found],
    ) -> None:
        """Reply with names of *directory*, that of *parent*; add to *told* what they are."""
        offset = start
        slices = self._volume.executor.turns.begin()
        names = self._volume.names
        while part := directory.part(offset, _AT_ONCE):
            asked = self._volume.executor.asking()
            try:
                looks = iter(await names.look_many(parent, [n for n, _ in part if n not in _DOTS]))
            except OSError:
                if offset == start:
                    raise
                return  # with what there is; the kernel asks for the rest
            for name, offset in part:
                await slices.rest()
                look = None if name in _DOTS else next(looks)
                if isinstance(look, FileNotFoundError):
                    continue  # removed since the names were read
                if look is None or isinstance(look, OSError):
                    entry = self._entries.dot(parent, name) if look is None else only_a_name()
                    if not pyfuse3.readdir_reply(token, pyfuse3.FileNameT(name), entry, offset):
                        return
                    continue
                found = names.learn(parent, name, look, asked)
                entry = self._entries.found(*found)
                if not pyfuse3.readdir_reply(token, pyfuse3.FileNameT(name), entry, offset):
                    self._inodes.abandon(found.inode)  # no room for it; it will be asked for again
                    return
                self._inodes.remember(found.inode)
                told.append(found)

    def _list_own(self, directory: Directory, start: int, token: pyfuse3.ReaddirToken) -> None:
        own, number = self._control, directory.number
        if start == 0:
            names = [*_DOTS, *(entry.name for entry in own.list(number))]
            directory.names = b"".join(name + b"\0" for name in names)
        for name, offset in directory.part(start, len(directory.names)):
            entry = self._entries.own(
                own.entry(number) if name in _DOTS else own.lookup(number, name)
            )
            if not pyfuse3.readdir_reply(token, pyfuse3.FileNameT(name), entry, offset):
                return
