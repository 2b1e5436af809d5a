"""Runs system calls on the backing directory: in line if they cannot block, else in a thread.

A disk may be slow, a server may not answer. So whatever may have to wait runs in a thread, and no
file and no filesystem may have more than a few threads: one that never answers must not take those
of all others. A thread gets descriptors and bytes, never anything that the trio thread changes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import trio

from tmemfs import threads
from tmemfs.cachefs.source.filesystems import Filesystem
from tmemfs.cachefs.source.routes import Stat, try_fstat
from tmemfs.cachefs.source.turns import Turns
from tmemfs.linux.credentials import Caller, acting_as, as_caller

T = TypeVar("T")

# Calls about the bytes of files that are under way at once, and those of them that concern one
# file. Each is a thread; a stuck file takes no more than its own.
_THREADS = 512
_THREADS_OF_A_FILE = 16
# Seconds of long work in line before others go on: who waits for a page of swap waits for some of
# these, and who lists a directory pays for each.
_SLICE_S, _SLICE_BESIDE_SWAP_S = 0.0003, 0.00005
# Bytes that may be written to a local file in line: as a rule the kernel only copies them, and a
# thread takes several times as long. Where it took more than this (s), a disk is behind with what
# it was given, and writes are made in threads for a while (s).
_WRITTEN_NOW = 128 << 10
_SLOW_WRITE_S = 0.002
_SLOW_FOR_S = 1.0


@dataclass(slots=True)
class CacheCounters:
    """What a cache volume asked of its backing directory, and why, since it was made."""

    backing_reads: int = 0
    backing_read_bytes: int = 0
    backing_writes: int = 0
    backing_write_bytes: int = 0
    shared_reads: int = 0
    """misses that the read of another miss served"""
    readahead_reads: int = 0
    readahead_pages: int = 0
    """pages that were read before anybody asked for them"""
    stale_objects: int = 0
    """files whose pages were dropped because somebody had changed them behind the mount"""
    recalled_attributes: int = 0
    recalled_names: int = 0
    """what was told because it had been seen a moment ago (`AttrCache`)"""
    listed_directories: int = 0
    """directories in which names were looked up one after the other"""

    def as_dict(self) -> dict[str, int]:
        """The counters by name."""
        return asdict(self)


class Block(NamedTuple):
    """What was read, fewer bytes than asked for only at the end, and the file right after it."""

    data: bytes
    info: Stat


class Asked(NamedTuple):
    """When something was asked for: after so many `changes` of ours, at the time `when` (s)."""

    changes: int
    when: float


class Change(NamedTuple):
    """A file right before and right after it was changed, and how many bytes were written.

    None where it could not be looked at, which is no failure of the change.
    """

    before: Stat | None
    after: Stat | None
    written: int = 0


class Changeable(Protocol):
    """What we change: an inode."""

    changed: int
    """the number of the last change of ours"""


class Executor:
    """The backing directory's system calls, in a mount that *serves_swap* or does not.

    With *noatime* what is read keeps its access time.
    """

    def __init__(self, *, serves_swap: bool, noatime: bool = False) -> None:
        self.serves_swap = serves_swap
        self.noatime = os.O_NOATIME if noatime else 0
        """a flag for opens"""
        self.counters = CacheCounters()
        self.changes = 0
        """how many changes we have made"""
        self.turns = Turns(_SLICE_BESIDE_SWAP_S if serves_swap else _SLICE_S)
        """who works in line for long"""
        self.waiting = 0
        """how many calls are under way in threads, or wait for one"""
        self._threads = trio.CapacityLimiter(_THREADS)
        self._cannot_ask: set[int] = set()

    def asking(self) -> Asked:
        """Return what tells, later, whether an answer is from before a change of ours."""
        return Asked(self.changes, time.monotonic())

    async def give_way(self) -> None:
        """Let others go on who put what they read: all of them, or one where there is swap."""
        if self.serves_swap:
            await self.turns.wait()
        else:
            await trio.lowlevel.checkpoint()

    def note_change(self, *inodes: Changeable) -> None:
        """Note that we have changed *inodes*, or may have."""
        self.changes += 1
        for inode in inodes:
            inode.changed = self.changes

    def limiter(self) -> trio.CapacityLimiter:
        """Return what limits the threads of one file."""
        return trio.CapacityLimiter(_THREADS_OF_A_FILE)

    async def call(self, on: Filesystem, function: Callable[..., T], *args: Any) -> T:
        """Ask for what a local filesystem has in memory: at once if *on* is one.

        When the mount ends, it is left behind.
        """
        return function(*args) if on.local else await self.ask(on, function, *args)

    async def ask(self, on: Filesystem, function: Callable[..., T], *args: Any) -> T:
        """Ask for what even a local filesystem may have to read, or takes long for.

        When the mount ends, it is left behind.
        """
        return await self.ask_by(on.threads, function, *args)

    async def ask_by(
        self, limiter: trio.CapacityLimiter, function: Callable[..., T], *args: Any
    ) -> T:
        """As `ask`, with another *limiter* than that of a filesystem that is known."""
        return await self._counted(
            threads.run(function, *args, limiter=limiter, abandon_on_cancel=True)
        )

    async def make(self, on: Filesystem, function: Callable[..., T], *args: Any) -> T:
        """Make a call that changes a name or an attribute: one that is not left behind.

        A local filesystem too waits for its journal, and as long as it is frozen. That is rare, and
        a thread costs more than most changes: without swap, which would wait too, there is none.
        """
        if on.local and not self.serves_swap:
            return function(*args)
        return await self._counted(threads.run(function, *args, limiter=on.threads))

    async def wait(
        self, file: trio.CapacityLimiter, function: Callable[..., T], *args: Any, safe: bool = False
    ) -> T:
        """Make a call about the bytes of a file, whose limiter is *file*, in a thread.

        When the mount ends, one that is *safe* to leave behind, because it changes nothing, is.
        """
        async with file:
            return await self._counted(
                threads.run(function, *args, limiter=self._threads, abandon_on_cancel=safe)
            )

    async def _counted(self, call: Awaitable[T]) -> T:
        self.waiting += 1
        try:
            return await call
        finally:
            self.waiting -= 1

    async def read(
        self, on: Filesystem, file: trio.CapacityLimiter, fd: int, offset: int, size: int
    ) -> Block:
        """Read *size* bytes at *offset*; what the kernel has of a local file without a thread.

        *size* must not reach beyond where the file is thought to end. The kernel forgets its own
        copy: the caller is going to keep one.
        """
        block = self._read_now(fd, offset, size) if on.local else None
        if block is None:
            return await self.read_past(file, fd, offset, size)
        self.count_read(block)
        return block

    async def read_past(self, file: trio.CapacityLimiter, fd: int, offset: int, size: int) -> Block:
        """Read up to *size* bytes at *offset* in a thread, whatever the file is thought to be."""
        block = await self.wait(file, read_block, fd, offset, size, safe=True)
        self.count_read(block)
        return block

    def count_read(self, block: Block) -> None:
        """Count what was read."""
        self.counters.backing_reads += 1
        self.counters.backing_read_bytes += len(block.data)

    async def write(
        self,
        file: trio.CapacityLimiter,
        caller: Caller,
        fd: int,
        buf: bytes,
        offset: int,
        flags: int,
    ) -> Change:
        """Write *buf* at *offset* as *caller*, with the *flags* of pwritev2(2)."""
        change = await self.wait(file, _write, caller, fd, buf, offset, flags)
        self.count_writes(1, change.written)
        return change

    def may_write_now(self, on: Filesystem, size: int) -> bool:
        """Say whether *size* bytes may be written in line: not where a page of swap would wait."""
        return (
            on.local
            and not self.serves_swap
            and size <= _WRITTEN_NOW
            and time.monotonic() >= on.slow_until
        )

    def write_now(
        self, on: Filesystem, caller: Caller, fd: int, buf: bytes, offset: int, flags: int
    ) -> Change:
        """As `write`, in line, if that `may_write_now`."""
        begun = time.monotonic()
        change = _write(caller, fd, buf, offset, flags)
        if time.monotonic() - begun > _SLOW_WRITE_S:
            on.slow_until = begun + _SLOW_FOR_S
        self.count_writes(1, change.written)
        return change

    def count_writes(self, count: int, size: int) -> None:
        """Count so many writes, of *size* bytes together."""
        self.counters.backing_writes += count
        self.counters.backing_write_bytes += size

    async def change(
        self,
        file: trio.CapacityLimiter,
        caller: Caller,
        function: Callable[..., None],
        fd: int,
        *args: int,
    ) -> Change:
        """Change the file of *fd* by *function*, as *caller*."""
        return await self.wait(file, _change, caller, function, fd, *args)

    def _read_now(self, fd: int, offset: int, size: int) -> Block | None:
        """What the kernel has at hand of the file, None where it is not all of it."""
        device = os.fstat(fd).st_dev
        if device in self._cannot_ask:
            return None
        buffer = bytearray(size)
        try:
            if os.preadv(fd, [buffer], offset, os.RWF_NOWAIT) < size:
                return None
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            self._cannot_ask.add(device)
            return None
        _drop(fd, offset, size)
        return Block(bytes(buffer), os.fstat(fd))


def read_block(fd: int, offset: int, size: int) -> Block:
    """Read *size* bytes at *offset*, and let the kernel forget its copy. Blocks."""
    data = _read_all(fd, offset, size)
    _drop(fd, offset, len(data))
    return Block(data, os.fstat(fd))


def _read_all(fd: int, offset: int, size: int) -> bytes:
    data = os.pread(fd, size, offset)
    # Fewer bytes are not the end yet where the filesystem is on a network.
    while 0 < len(data) < size and (more := os.pread(fd, size - len(data), offset + len(data))):
        data += more
    return data


def _write(caller: Caller, fd: int, buf: bytes, offset: int, flags: int) -> Change:
    before = try_fstat(fd)
    with acting_as(caller):
        written = _write_all(fd, buf, offset, flags)
    return Change(before, try_fstat(fd), written)


def _write_all(fd: int, buf: bytes, offset: int, flags: int) -> int:
    written = os.pwritev(fd, [buf], offset, flags)
    while written < len(buf):
        try:
            written += os.pwritev(fd, [buf[written:]], offset + written, flags)
        except OSError:
            break
    return written


def _change(caller: Caller, function: Callable[..., None], fd: int, *args: int) -> Change:
    before = try_fstat(fd)
    as_caller(caller, function, fd, *args)
    return Change(before, try_fstat(fd))


def _drop(fd: int, offset: int, size: int) -> None:
    """Let the kernel forget its own copy of what the pool is going to have: two are enough."""
    with contextlib.suppress(OSError):
        os.posix_fadvise(fd, offset, size, os.POSIX_FADV_DONTNEED)
