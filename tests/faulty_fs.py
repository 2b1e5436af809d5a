"""The program behind `faulty.FaultyBacking`: a filesystem that fails on request.

    python faulty_fs.py DIRECTORY MOUNTPOINT CACHED

shows DIRECTORY as MOUNTPOINT until its standard input ends; each line there is a command in JSON,
and is answered by a line.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyfuse3
import trio
from pyfuse3 import FileInfo, FUSEError

ANY = "*"
ENDLESS = 1 << 62


@dataclass
class Fault:
    """What happens to those calls of an operation on a name that reach into a range of bytes."""

    name: str
    operation: str
    error: int = 0
    hang: bool = False
    delay: float = 0
    short: int = 0
    """at most so many bytes at a time"""
    start: int = 0
    end: int = ENDLESS
    mended: trio.Event = field(default_factory=trio.Event)

    def meets(self, operation: str, name: str, offset: int, size: int) -> bool:
        return (
            self.operation in (ANY, operation)
            and self.name in (ANY, name)
            and self.start < offset + max(size, 1)
            and offset < self.end
        )


class Faults:
    """The faults there are, who is held by them, and every call that was made."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._held: Counter[str] = Counter()
        self._calls: list[tuple[str, str, int, int]] = []

    async def meet(self, operation: str, name: str, offset: int = 0, size: int = 0) -> int:
        """Go through what there is for this call; return how many bytes it may move."""
        self._calls.append((operation, name, offset, size))
        for fault in list(self._faults):
            if not fault.meets(operation, name, offset, size):
                continue
            if fault.hang:
                self._held[name] += 1
                await fault.mended.wait()
                self._held[name] -= 1
            await trio.sleep(fault.delay)
            if fault.error and offset >= fault.start:
                raise FUSEError(fault.error)
            if fault.error:
                size = fault.start - offset
            size = min(size, fault.short or size)
        return size

    # -- what the test asks ------------------------------------------------------------------

    def inject(self, **what: Any) -> None:
        self._faults.append(Fault(**what))

    def mend(self, name: str) -> None:
        for fault in [fault for fault in self._faults if name in (ANY, fault.name)]:
            self._faults.remove(fault)
            fault.mended.set()

    def held(self, name: str) -> int:
        return self._held.total() if name == ANY else self._held[name]

    def calls(self, name: str, operation: str) -> list[tuple[int, int]]:
        return [
            (offset, size)
            for made, of, offset, size in self._calls
            if operation in (ANY, made) and name in (ANY, of)
        ]

    def forget(self) -> None:
        self._calls.clear()


def _request(method: Callable[..., Any]) -> Callable[..., Any]:
    """A handler whose OSErrors go to the caller; pyfuse3 would end the mount."""

    @functools.wraps(method)
    async def wrapped(*args: Any) -> Any:
        try:
            return await method(*args)
        except OSError as error:
            raise FUSEError(error.errno or errno.EIO) from error

    return wrapped


class FaultyOperations(pyfuse3.Operations):
    """The directory *under*; every request meets the *faults* first. Inodes are its own."""

    def __init__(self, under: str, faults: Faults, *, cached: bool) -> None:
        super().__init__()
        self._under = under
        self._meet = faults.meet
        self._cached = cached
        self._names: dict[int, str] = {pyfuse3.ROOT_INODE: "."}
        self._files: dict[int, tuple[str, int]] = {}  # by descriptor: the name, the inode
        self._lists: dict[int, list[str]] = {}

    def _path(self, inode: int) -> str:
        return os.path.join(self._under, self._names[inode])

    def _child(self, parent: int, name: bytes) -> str:
        return os.path.normpath(os.path.join(self._names[parent], os.fsdecode(name)))

    def _entry(self, info: os.stat_result, name: str) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        for key in dir(info):
            if key.startswith("st_") and hasattr(entry, key):
                setattr(entry, key, getattr(info, key))
        entry.attr_timeout = entry.entry_timeout = 0
        if name == ".":
            entry.st_ino = pyfuse3.ROOT_INODE
        self._names[entry.st_ino] = name
        return entry

    def _look(self, name: str) -> pyfuse3.EntryAttributes:
        return self._entry(os.lstat(os.path.join(self._under, name)), name)

    @_request
    async def lookup(self, parent: int, name: bytes, ctx: Any) -> Any:
        child = self._child(parent, name)
        await self._meet("lookup", child)
        return self._look(child)

    @_request
    async def getattr(self, inode: int, ctx: Any) -> Any:
        name = self._names[inode]
        await self._meet("getattr", name)
        for fd, (_, opened) in self._files.items():
            if opened == inode:  # which may have no name any more
                return self._entry(os.fstat(fd), name)
        return self._look(name)

    @_request
    async def setattr(self, inode: int, attr: Any, fields: Any, fh: int | None, ctx: Any) -> Any:
        name, path = self._names[inode], self._path(inode)
        await self._meet("setattr", name)
        if fields.update_size:
            os.truncate(fh if fh is not None else path, attr.st_size)
        if fields.update_mode:
            os.chmod(path, attr.st_mode & 0o7777)
        if fields.update_mtime:
            os.utime(path, ns=(attr.st_atime_ns, attr.st_mtime_ns))
        return self._look(name)

    @_request
    async def mkdir(self, parent: int, name: bytes, mode: int, ctx: Any) -> Any:
        child = self._child(parent, name)
        await self._meet("mkdir", child)
        os.mkdir(os.path.join(self._under, child), mode)
        return self._look(child)

    @_request
    async def unlink(self, parent: int, name: bytes, ctx: Any) -> None:
        child = self._child(parent, name)
        await self._meet("unlink", child)
        os.unlink(os.path.join(self._under, child))

    @_request
    async def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int, ctx: Any
    ) -> None:
        old, new = self._child(parent, name), self._child(new_parent, new_name)
        await self._meet("rename", old)
        os.rename(os.path.join(self._under, old), os.path.join(self._under, new))
        self._look(new)

    @_request
    async def statfs(self, ctx: Any) -> pyfuse3.StatvfsData:
        await self._meet("statfs", ".")
        found = pyfuse3.StatvfsData()
        for key in ("bsize", "frsize", "blocks", "bfree", "bavail", "files", "ffree", "favail"):
            setattr(found, f"f_{key}", getattr(os.statvfs(self._under), f"f_{key}"))
        return found

    @_request
    async def open(self, inode: int, flags: int, ctx: Any) -> FileInfo:
        await self._meet("open", self._names[inode])
        return self._opened(os.open(self._path(inode), flags & ~os.O_DIRECT), inode)

    @_request
    async def create(self, parent: int, name: bytes, mode: int, flags: int, ctx: Any) -> Any:
        child = self._child(parent, name)
        await self._meet("create", child)
        fd = os.open(os.path.join(self._under, child), flags | os.O_CREAT, mode)
        entry = self._look(child)
        return self._opened(fd, entry.st_ino), entry

    def _opened(self, fd: int, inode: int) -> FileInfo:
        self._files[fd] = self._names[inode], inode
        return FileInfo(fh=pyfuse3.FileHandleT(fd), direct_io=not self._cached)

    @_request
    async def read(self, fh: int, off: int, size: int) -> bytes:
        return os.pread(fh, await self._meet("read", self._files[fh][0], off, size), off)

    @_request
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        size = await self._meet("write", self._files[fh][0], off, len(buf))
        return os.pwrite(fh, buf[:size], off)

    @_request
    async def flush(self, fh: int) -> None:
        await self._meet("flush", self._files[fh][0])

    @_request
    async def fsync(self, fh: int, datasync: bool) -> None:
        await self._meet("fsync", self._files[fh][0])

    @_request
    async def release(self, fh: int) -> None:
        del self._files[fh]
        os.close(fh)

    @_request
    async def opendir(self, inode: int, ctx: Any) -> int:
        return inode

    @_request
    async def readdir(self, fh: int, start_id: int, token: Any) -> None:
        await self._meet("readdir", self._names[fh])
        if start_id == 0:
            self._lists[fh] = sorted(os.listdir(self._path(fh)))
        for number, name in enumerate(self._lists[fh][start_id:], start_id + 1):
            entry = self._look(self._child(fh, os.fsencode(name)))
            if not pyfuse3.readdir_reply(token, os.fsencode(name), entry, number):
                break


async def _obey(faults: Faults) -> None:
    """Do what comes, a line each, until the end of the input."""
    async for line in trio.wrap_file(sys.stdin):
        command, what = json.loads(line)
        print(json.dumps(getattr(faults, command)(**what)), flush=True)
    faults.mend(ANY)
    pyfuse3.terminate()


async def _serve(faults: Faults) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_obey, faults)
        print(json.dumps("ready"), flush=True)
        await pyfuse3.main(max_tasks=100_000)
        nursery.cancel_scope.cancel()


def main(under: str, mountpoint: str, cached: str) -> None:
    """Serve until the input ends."""
    os.umask(0)
    faults = Faults()
    options = {*pyfuse3.default_options, "fsname=faulty", "allow_other"}
    pyfuse3.init(FaultyOperations(under, faults, cached=bool(int(cached))), mountpoint, options)
    try:
        trio.run(_serve, faults)
    finally:
        pyfuse3.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
