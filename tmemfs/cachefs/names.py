"""Looks up names and attributes in the backing directory.

Each method does in the backing directory what its namesake in the VFS would do there, and raises
the same OSError. Nothing is cached here but inodes, and what the `AttrCache` has; permissions are
the kernel's business (``default_permissions``). What changes them is in `tmemfs.cachefs.modify`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import NamedTuple

import trio

from tmemfs import supervise
from tmemfs.cachefs.attrcache import LARGEST, AttrCache, Listing
from tmemfs.cachefs.inode import Inode
from tmemfs.cachefs.inodes import InodeTable
from tmemfs.cachefs.source import directories
from tmemfs.cachefs.source.executor import Asked, Executor
from tmemfs.cachefs.source.routes import (
    Look,
    Stat,
    getxattr,
    listxattr,
    look,
    look_across,
    look_cached,
    readlink,
)

# Calls under way at once that look at what is mounted on one name.
_THREADS_OF_A_MOUNT = 16
# What says that an inode, or what leads to it, has gone.
_GONE = (errno.ENOENT, errno.ESTALE)


class Found(NamedTuple):
    """An inode, its attributes, and for how long (s) these have been known."""

    inode: Inode
    info: Stat
    age: float = 0.0


class Names:
    """The directory tree below the root of *inodes*, looked at by calls of *executor*.

    What *attrcache* has is not asked for again.
    """

    def __init__(self, inodes: InodeTable, executor: Executor, attrcache: AttrCache) -> None:
        self.inodes = inodes
        self.attrcache = attrcache
        self._executor = executor
        self._counters = executor.counters
        # So few that listings, which nobody has asked for, take no threads from those who ask.
        self._listings = executor.limiter()
        self._crossings: dict[tuple[Inode, bytes], trio.CapacityLimiter] = {}

    async def lookup(self, parent: Inode, name: bytes) -> Found:
        """Return the inode of *name* in *parent* and its attributes."""
        on = parent.filesystem
        if on.local or on.on_demand:  # nothing is kept of what answers at once
            return await self.lookup_anew(parent, name)
        now = self._executor.asking()
        if self.attrcache.has_negative(parent, name):
            self._counters.recalled_names += 1
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        known = self.attrcache.listing(parent, now)
        if known is not None:
            if not known.begun:
                known.begun = True
                self._counters.listed_directories += 1
                parent.pin()
                supervise.start(self._list, parent, known)
            await known.wait()
            if (found := self._from_listing(parent, name, known)) is not None:
                self._counters.recalled_names += 1
                return found
        try:
            found = await self.lookup_anew(parent, name)
        except FileNotFoundError:
            self.attrcache.note_negative(parent, name, now)
            raise
        self.attrcache.found(parent, now)
        return found

    async def lookup_anew(self, parent: Inode, name: bytes) -> Found:
        """As `lookup`, whatever is known already."""
        if parent.filesystem.local and parent.fd >= 0:
            # The way of most lookups, and a short one.
            seen = look_cached(parent.fd, name)
            if seen is not None:
                self.inodes.descriptors.used(parent)
                return self._found_now(parent, name, seen)
        asked = self._executor.asking()
        async with parent.open() as directory:
            try:
                looked = await self.look(parent, directory, name)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                looked = await self._look_across(parent, directory, name)
        return self.learn(parent, name, looked, asked)

    async def look_many(self, parent: Inode, names: list[bytes]) -> list[Look | OSError]:
        """Look at some names in *parent* for a listing of it; an error for each that has one.

        What is mounted there is not looked at (EXDEV): it may not answer, and who lists the
        directory has not asked for it.
        """
        if parent.filesystem.on_demand:
            return [_crossing(name) for name in names]
        async with parent.open() as directory:
            if not parent.filesystem.local:
                return await self._executor.ask(
                    parent.filesystem, directories.look_many, directory, names
                )
            found = directories.look_many_cached(directory, names)
            rest = [name for name, look in zip(names, found, strict=True) if look is None]
            others: Iterator[Look | OSError] = iter(
                await self._executor.ask(parent.filesystem, directories.look_many, directory, rest)
                if rest
                else ()
            )
            return [look or next(others) for look in found]

    def learn(self, parent: Inode, name: bytes, look: Look, asked: Asked) -> Found:
        """Return the inode of what was found as *name* in *parent*, when it was *asked* for."""
        if (
            parent.filesystem.local
            and look.mount is None
            and self._executor.changes == asked.changes
        ):
            return self._found_now(parent, name, look)
        self.attrcache.heard(parent, name, asked)
        return self._learned(parent, name, look, asked)

    async def getattr(self, inode: Inode) -> Found:
        """Return *inode* and its attributes, which need not be quite new."""
        if inode.filesystem.local and inode.fd >= 0:
            self.inodes.descriptors.used(inode)
            info = os.fstat(inode.fd)
            self._see(inode, info)
            return Found(inode, info)
        if (recent := self.attrcache.attributes(inode)) is not None:
            inode.kernel_size = recent[0].st_size
            self._counters.recalled_attributes += 1
            return Found(inode, *recent)
        return Found(inode, await self.fstat(inode))

    async def fstat(self, inode: Inode) -> Stat:
        """Return the attributes of *inode* as they are now.

        What is open and has no name any more, where files go by path, is as it was seen last.
        """
        asked = self._executor.asking()
        try:
            info = await inode.call(os.fstat)
            self.inodes.descriptors.check(inode, info)
        except OSError as error:
            if error.errno not in _GONE or inode.data is None or inode.data.info is None:
                raise
            inode.data.set_apart()
            last: Stat = inode.data.info
            return last
        self.attrcache.note(inode, info, asked)
        if inode.changed <= asked.changes:  # else they may be from before
            self._see(inode, info)
        return info

    async def listdir(self, inode: Inode) -> bytes:
        """Return every name in a directory, ``.`` and ``..`` first, with a NUL after each."""
        async with inode.open() as fd:
            noatime = self._executor.noatime
            return await self._executor.ask(inode.filesystem, directories.listdir, fd, noatime)

    async def readlink(self, inode: Inode) -> bytes:
        """Return where a symbolic link points."""
        async with inode.open() as fd:
            return os.fsencode(await self._executor.ask(inode.filesystem, readlink, fd))

    async def statfs(self, inode: Inode) -> os.statvfs_result:
        """Return the figures of the filesystem that *inode* is on."""
        async with inode.open() as fd:
            return await self._executor.ask(inode.filesystem, os.fstatvfs, fd)

    async def getxattr(self, inode: Inode, name: bytes) -> bytes:
        """Return the value of an extended attribute."""
        return await inode.call(getxattr, name)

    async def listxattr(self, inode: Inode) -> list[bytes]:
        """Return the names of all extended attributes."""
        return await inode.call(listxattr)

    # -- inside ------------------------------------------------------------------------------

    async def look(self, parent: Inode, directory: int, name: bytes) -> Look:
        """Look at *name* in *parent*, which is open as *directory*. EXDEV for a mount."""
        if parent.filesystem.on_demand:
            raise _crossing(name)
        if parent.filesystem.local and (found := look_cached(directory, name)) is not None:
            return found
        return await self._executor.ask(parent.filesystem, look, directory, name)

    async def _look_across(self, parent: Inode, directory: int, name: bytes) -> Look:
        """Look at what is mounted on *name* in *parent*: in threads that nobody else needs."""
        mounted = parent, name
        limiter = self._crossings.setdefault(mounted, trio.CapacityLimiter(_THREADS_OF_A_MOUNT))
        try:
            return await self._executor.ask_by(limiter, look_across, directory, name)
        finally:
            if not limiter.borrowed_tokens:
                self._crossings.pop(mounted, None)

    def _learned(self, parent: Inode, name: bytes, looked: Look, asked: Asked) -> Found:
        inode = self.inodes.learn(parent, name, looked, asked.changes)
        info = looked.info
        self.attrcache.update(inode, info, asked)
        if inode.changed <= asked.changes:
            self._see(inode, info)
        return Found(inode, info)

    def _found_now(self, parent: Inode, name: bytes, look: Look) -> Found:
        """What was found in a local directory, with nobody else at work since it was asked for."""
        inode = self.inodes.learn(parent, name, look, self._executor.changes)
        info = look.info
        inode.kernel_size = info.st_size
        if inode.data is not None:
            inode.data.notice(info)
        return Found(inode, info)

    @staticmethod
    def _see(inode: Inode, info: Stat) -> None:
        """Take note of attributes of which the kernel is going to be told."""
        inode.kernel_size = info.st_size
        if inode.data is not None:
            inode.data.notice(info)

    async def _list(self, parent: Inode, listing: Listing) -> None:
        """See what there is in *parent*, which is pinned for it."""
        looks: dict[bytes, Look] | None = None
        try:
            async with parent.open() as directory:
                looks = await self._executor.wait(
                    self._listings, directories.look_at_all, directory, LARGEST, safe=True
                )
        finally:
            self.attrcache.listed(parent, listing, looks)
            parent.unpin()

    def _from_listing(self, parent: Inode, name: bytes, listing: Listing) -> Found | None:
        """What *listing* says of *name*, if nothing has happened since that it cannot know."""
        found = self.attrcache.told_by(listing, name)
        if found is None or parent.changed > listing.asked.changes:
            return None
        look, age = found
        inode = self.inodes.known(parent, look)
        if inode is None:
            # Who knows whether we have changed it since.
            if self._executor.changes > listing.asked.changes:
                return None
        elif (
            inode.data is not None  # of a file that is open, more is known
            or inode.changed > listing.asked.changes
            or not inode.has(look.handle)
            or self.attrcache.is_newer(inode, listing.asked)
        ):
            return None
        return self._learned(parent, name, look, listing.asked)._replace(age=age)


def _crossing(name: bytes) -> OSError:
    return OSError(errno.EXDEV, os.strerror(errno.EXDEV), name)
