"""Requests that pyfuse3 has no handler for: fallocate, and with it the discard of swap.

The extension hands them over as the kernel has sent them (see `tmemfs.fuse.session`). Without it
the kernel gets ENOSYS, and pages it has freed stay in a swap volume until it writes them again.
"""

from __future__ import annotations

import contextvars
import errno
import struct
from collections.abc import Awaitable
from typing import Protocol

import trio

from tmemfs.fuse import session

# The request's number, and what comes with it: struct fuse_fallocate_in of linux/fuse.h.
_FALLOCATE = 43
_FALLOCATE_IN = struct.Struct("=QQQII")


class HasRawRequests(Protocol):
    """The handlers, as far as they are asked here."""

    def fallocate(self, fh: int, mode: int, offset: int, length: int) -> Awaitable[None]:
        """Change a range of an open file; what it raises has an errno."""


def serve(operations: HasRawRequests) -> None:
    """Let *operations* answer from now on. To be called before the first request is served."""
    if session.extension is None:
        return

    def begin(opcode: int, unique: int, nodeid: int, body: bytes) -> None:
        # Amid pyfuse3's own work on the request, where nothing can be awaited.
        fh, offset, length, mode, _ = _FALLOCATE_IN.unpack_from(body)
        asked = operations.fallocate(fh, mode, offset, length)
        # In a copy of this context: in it is who asks.
        context = contextvars.copy_context()
        trio.lowlevel.spawn_system_task(_answer, unique, asked, context=context)

    session.extension.listen(begin, bytes([_FALLOCATE]))


async def _answer(unique: int, asked: Awaitable[None]) -> None:
    """Await what was *asked*, and reply whatever happens: an exception here would end the mount."""
    code = errno.EIO
    try:
        await asked
        code = 0
    except Exception as error:
        code = getattr(error, "errno", None) or errno.EIO
        if code == errno.ENOSYS:
            # Which would tell the kernel never to ask again, for no file of the mount.
            code = errno.EOPNOTSUPP
    finally:
        assert session.extension is not None
        session.extension.answer(unique, code, b"")
