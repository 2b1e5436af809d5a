"""What the files below ``.tmemfs`` are once they are open; of swap volumes, see `SwapFile`."""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from tmemfs.errors import BudgetError, BudgetInUse, UsageError
from tmemfs.mount import Setting
from tmemfs.native.lane import Lane
from tmemfs.units import parse_size

_ALL = "all"
_LARGEST_NUMBER = (1 << 64) - 1


class OpenControl(Protocol):
    """What reads and writes of an open control file go to."""

    @property
    def size(self) -> int:
        """Where it ends."""

    def read(
        self, offset: int, size: int
    ) -> bytes | memoryview | Coroutine[Any, Any, bytes | memoryview]:
        """Return up to *size* bytes at *offset*, or a coroutine that does."""

    def write(self, offset: int, buf: bytes) -> int | Coroutine[Any, Any, int]:
        """Write all of *buf*, or return a coroutine that does."""

    async def fallocate(self, mode: int, offset: int, length: int) -> None:
        """Do what fallocate(2) does to *length* bytes at *offset*."""

    def grant(self, lane: Lane, handle: int) -> None:
        """Let *lane* answer what it can of the file, which is open as *handle*."""

    def release(self) -> None:
        """Take note that it is closed."""


class Text:
    """A text as it was at the open, and what each write is given to, if anything."""

    def __init__(self, text: str, order: Callable[[str], Awaitable[None]] | None = None) -> None:
        self._data = text.encode()
        self._order = order

    @property
    def size(self) -> int:
        return len(self._data)

    def read(self, offset: int, size: int) -> bytes:
        return self._data[offset : offset + size]

    async def write(self, offset: int, buf: bytes) -> int:
        if self._order is None:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        await self._order(buf.decode("utf-8", "replace").strip())
        return len(buf)

    async def fallocate(self, mode: int, offset: int, length: int) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    def grant(self, lane: Lane, handle: int) -> None:
        """It has no pages."""

    def release(self) -> None:
        """Nothing is held."""


def open_setting(setting: Setting) -> Text:
    """The file of a setting, as opened: read in plain numbers, written as people write sizes."""
    return Text(f"{setting.get()}\n", functools.partial(_change_setting, setting))


async def _change_setting(setting: Setting, text: str) -> None:
    """Set it to what *text* means. Raises EINVAL where that cannot be, EBUSY where not now."""
    try:
        size = parse_size(text)
        if not setting.least <= size <= setting.most:
            raise OSError(
                errno.EINVAL, f"{setting.name} is not from {setting.least} to {setting.most}"
            )
        done = setting.set(size)
        if done is not None:
            await done
    except BudgetInUse as error:
        raise OSError(errno.EBUSY, str(error)) from error
    except (UsageError, BudgetError) as error:
        raise OSError(errno.EINVAL, str(error)) from error


def inode_numbers(text: str) -> list[int] | None:
    """The numbers in *text*, one a line; None for the word ``all``. EINVAL for anything else."""
    words = text.split()
    if words == [_ALL]:
        return None
    # By letters of ASCII only: int() takes others, too, and underscores.
    numbers = [int(word) for word in words if word.isascii() and word.isdigit()]
    if not words or len(numbers) < len(words) or max(numbers) > _LARGEST_NUMBER:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return numbers
