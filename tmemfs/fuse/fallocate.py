"""The request that pyfuse3 has no handler for: fallocate, and with it the discard of swap.

``_fallocate.c``, which says how, is built where there are a compiler and libfuse's headers. Without
it everything works but this: the kernel gets EOPNOTSUPP, and pages it has freed stay in a swap
volume until it writes them again.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Awaitable
from types import ModuleType
from typing import Protocol

import trio


class HasFallocate(Protocol):
    """The handlers, as far as they are asked here."""

    def fallocate(self, fh: int, mode: int, offset: int, length: int) -> Awaitable[None]:
        """Change a range of an open file; what it raises has an errno."""


def active() -> bool:
    """Say whether fallocate is served: from the moment on when pyfuse3 has made its session."""
    return _extension is not None and bool(_extension.active())


def why_not() -> str:
    """Say for people what is missing where it is not `active`."""
    return _missing or "pyfuse3 makes its sessions in another way than it used to"


def serve(operations: HasFallocate) -> None:
    """Let *operations* answer from now on. To be called before the first request is served."""
    if _extension is None:
        return

    def begin(request: int, inode: int, fh: int, mode: int, offset: int, length: int) -> None:
        # Amid pyfuse3's own work on the request, where nothing can be awaited.
        asked = operations.fallocate(fh, mode, offset, length)
        trio.lowlevel.spawn_system_task(_answer, request, asked)

    _extension.listen(begin)


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
        assert _extension is not None
        _extension.reply(request, code)


def _load() -> ModuleType:
    """Load the extension so that pyfuse3, if it is loaded after it, finds it before libfuse."""
    before = sys.getdlopenflags()
    sys.setdlopenflags(before | os.RTLD_GLOBAL)
    try:
        return importlib.import_module("tmemfs.fuse._fallocate")
    finally:
        sys.setdlopenflags(before)


_extension: ModuleType | None = None
_missing = ""
try:
    _extension = _load()
except ImportError as problem:
    _missing = f"tmemfs was installed without its extension ({problem})"
