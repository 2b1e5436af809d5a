"""The request that pyfuse3 has no handler for: fallocate, and with it the discard of swap.

Without the extension (see `tmemfs.fuse.session`) the kernel gets EOPNOTSUPP, and pages it has freed
stay in a swap volume until it writes them again.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable
from typing import Protocol

import trio

from tmemfs.fuse import session


class HasFallocate(Protocol):
    """The handlers, as far as they are asked here."""

    def fallocate(self, fh: int, mode: int, offset: int, length: int) -> Awaitable[None]:
        """Change a range of an open file; what it raises has an errno."""


def serve(operations: HasFallocate) -> None:
    """Let *operations* answer from now on. To be called before the first request is served."""
    if session.extension is None:
        return

    def begin(request: int, inode: int, fh: int, mode: int, offset: int, length: int) -> None:
        # Amid pyfuse3's own work on the request, where nothing can be awaited.
        asked = operations.fallocate(fh, mode, offset, length)
        trio.lowlevel.spawn_system_task(_answer, request, asked)

    session.extension.listen(begin)


async def _answer(request: int, asked: Awaitable[None]) -> None:
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
        session.extension.reply(request, code)
