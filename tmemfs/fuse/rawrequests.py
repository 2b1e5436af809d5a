"""Requests that pyfuse3 has no handler for: fallocate (the discard of swap), lseek and tmpfile.

The extension hands them over as the kernel has sent them (see `tmemfs.fuse.session`), and what is
here reads and writes what linux/fuse.h defines. Without it the kernel gets ENOSYS: pages it has
freed stay in a swap volume until it writes them again, all of a file is data, and no file is made
without a name.
"""

from __future__ import annotations

import contextvars
import errno
import struct
from collections.abc import Awaitable, Callable
from typing import Protocol

import pyfuse3
import trio

from tmemfs.fuse import session
from tmemfs.supervise import failsafe

_FALLOCATE, _LSEEK, _TMPFILE = 43, 46, 51

_FALLOCATE_IN = struct.Struct("=QQQII")
_LSEEK_IN = struct.Struct("=QQII")
_LSEEK_OUT = struct.Struct("=q")
_CREATE_IN = struct.Struct("=IIII")
_ENTRY_OUT = struct.Struct("=QQQQII QQQQQQ IIIIIIIIII")
_OPEN_OUT = struct.Struct("=QII")
_DIRECT_IO, _KEEP_CACHE = 1, 2


class HasRawRequests(Protocol):
    """The handlers, as far as they are asked here. What they raise has an errno."""

    def fallocate(self, fh: int, mode: int, offset: int, length: int) -> Awaitable[None]:
        """Change a range of an open file."""

    def lseek(self, fh: int, offset: int, whence: int) -> Awaitable[int]:
        """Return where data, or a hole, begins: ``SEEK_DATA``, ``SEEK_HOLE``."""

    def tmpfile(
        self, parent: int, mode: int, flags: int, umask: int
    ) -> Awaitable[tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]]:
        """Make a file without a name on the filesystem of *parent*, and open it."""


def serve(operations: HasRawRequests) -> None:
    """Let *operations* answer from now on. To be called before the first request is served."""
    if session.extension is None:
        return

    async def fallocate(nodeid: int, body: bytes) -> bytes:
        fh, offset, length, mode, _ = _FALLOCATE_IN.unpack_from(body)
        await operations.fallocate(fh, mode, offset, length)
        return b""

    async def lseek(nodeid: int, body: bytes) -> bytes:
        fh, offset, whence, _ = _LSEEK_IN.unpack_from(body)
        return _LSEEK_OUT.pack(await operations.lseek(fh, offset, whence))

    async def tmpfile(nodeid: int, body: bytes) -> bytes:
        flags, mode, umask, _ = _CREATE_IN.unpack_from(body)
        info, entry = await operations.tmpfile(nodeid, mode, flags, umask)
        return _entry(entry) + _opened(info)

    kinds: dict[int, Callable[[int, bytes], Awaitable[bytes]]]
    kinds = {_FALLOCATE: fallocate, _LSEEK: lseek, _TMPFILE: tmpfile}

    def begin(opcode: int, unique: int, nodeid: int, body: bytes) -> None:
        # Amid pyfuse3's own work on the request, where nothing can be awaited. In a copy of this
        # context: in it is who asks.
        context = contextvars.copy_context()
        asked = kinds[opcode](nodeid, body)
        trio.lowlevel.spawn_system_task(_answer, unique, asked, context=context)

    session.extension.listen(begin, bytes(kinds))


async def _answer(unique: int, asked: Awaitable[bytes]) -> None:
    """Await what was *asked*, and reply whatever happens: an exception here would end the mount."""
    code, body = errno.EIO, b""
    try:
        body = await asked
        code = 0
    except Exception as error:
        code = getattr(error, "errno", None) or errno.EIO
        if not isinstance(error, OSError | pyfuse3.FUSEError):  # what no handler has seen
            failsafe.note("raw request", error)
        if code == errno.ENOSYS:
            # Which would tell the kernel never to ask again, for no file of the mount.
            code = errno.EOPNOTSUPP
    finally:
        assert session.extension is not None
        session.extension.answer(unique, code, body)


def _entry(entry: pyfuse3.EntryAttributes) -> bytes:
    valid = [
        divmod(round(seconds * 1e9), 10**9) for seconds in (entry.entry_timeout, entry.attr_timeout)
    ]
    times = [divmod(ns, 10**9) for ns in (entry.st_atime_ns, entry.st_mtime_ns, entry.st_ctime_ns)]
    return _ENTRY_OUT.pack(
        *(entry.st_ino, entry.generation, *(s for s, _ in valid), *(ns for _, ns in valid)),
        *(entry.st_ino, entry.st_size, entry.st_blocks, *(s for s, _ in times)),
        *(ns for _, ns in times),
        *(entry.st_mode, entry.st_nlink, entry.st_uid, entry.st_gid, entry.st_rdev),
        *(entry.st_blksize, 0),
    )


def _opened(info: pyfuse3.FileInfo) -> bytes:
    flags = _DIRECT_IO * info.direct_io | _KEEP_CACHE * info.keep_cache
    return _OPEN_OUT.pack(info.fh, flags, 0)
