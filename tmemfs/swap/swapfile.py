"""The file of a swap volume: who has it open.

Two loop devices on one volume would be two swap devices on the same pages, each sure that they are
its own: memory would get other memory's bytes. So the file is open for writing once at a time,
whoever opens it and by whatever path. And a volume that is open is in use: while it is, the daemon
does not end.
"""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import trio

from tmemfs.native.lane import Lane
from tmemfs.supervise import failsafe
from tmemfs.swap.writebuffer import WriteBuffer

# We hear of a close some time after close(2) has returned. Whoever opens the file next, or ends the
# daemon then, is not to be refused for that.
LATE_CLOSE_S = 1.0
# Seconds before a request that failed by an error that may be over soon is tried again.
_PAUSES_S = (0.01, 0.1, 1.0)

T = TypeVar("T")
Read = bytes | memoryview


class SwapFile:
    """The file of the volume behind *buffer*."""

    def __init__(self, buffer: WriteBuffer) -> None:
        self.buffer = buffer
        self.name = buffer.volume.name
        self.size = buffer.volume.size
        self._opened: set[OpenSwap] = set()
        self._closed = trio.Event()

    @property
    def in_use(self) -> bool:
        """Whether somebody has it open, for reading only too."""
        return bool(self._opened)

    async def open(self, flags: int) -> OpenSwap:
        """Open it with the *flags* of open(2). Raises ETXTBSY for who is the second to write.

        As a swap file does; and losetup(8), which takes EBUSY for that of a device, would try again
        for minutes.
        """
        opened = OpenSwap(self, writing=flags & os.O_ACCMODE != os.O_RDONLY)
        with trio.move_on_after(LATE_CLOSE_S):
            while opened.writing and self._has_writer():
                await self._closed.wait()
        if opened.writing and self._has_writer():
            raise OSError(errno.ETXTBSY, os.strerror(errno.ETXTBSY))
        self._opened.add(opened)
        return opened

    async def closed(self) -> None:
        """Return when nobody has it open."""
        while self._opened:
            await self._closed.wait()

    def forget(self, opened: OpenSwap) -> None:
        """Take note that *opened* is closed."""
        self._opened.discard(opened)
        self._closed.set()
        self._closed = trio.Event()

    def _has_writer(self) -> bool:
        return any(other.writing for other in self._opened)


class OpenSwap:
    """A swap volume's *file* as opened, maybe for *writing*.

    A request that fails for lack of memory, or by a mistake of ours, is tried again for a second:
    who waits for a page of swap has no other way to it.
    """

    def __init__(self, file: SwapFile, *, writing: bool) -> None:
        self.writing = writing
        self._stage: Callable[[int, bytes], bool] = lambda offset, buf: False
        self._file = file
        self._buffer = file.buffer

    @property
    def size(self) -> int:
        """Bytes of the volume."""
        return self._file.size

    def read(self, offset: int, size: int) -> Read | Coroutine[Any, Any, Read]:
        """See `SwapVolume.read`."""
        return _tried(self._buffer.read, offset, size)

    def write(self, offset: int, buf: bytes) -> int | Coroutine[Any, Any, int]:
        """See `SwapVolume.write`."""
        return _tried(self._write, offset, buf)

    async def fallocate(self, mode: int, offset: int, length: int) -> None:
        """See `SwapVolume.fallocate`."""
        call = self._buffer.fallocate
        await _awaited(call(mode, offset, length), call, mode, offset, length)

    def grant(self, lane: Lane, handle: int) -> None:
        """See `SwapVolume.grant`."""
        self._buffer.volume.grant(lane, handle)
        self._stage = functools.partial(lane.stage, handle)

    def _write(self, offset: int, buf: bytes) -> int | Coroutine[Any, Any, int]:
        if self._stage(offset, buf):  # as the lane would have, but for what we were doing
            return len(buf)
        return self._buffer.write(offset, buf)

    def release(self) -> None:
        """Close it."""
        self._file.forget(self)


def _tried(
    call: Callable[..., T | Coroutine[Any, Any, T]], *args: Any
) -> T | Coroutine[Any, Any, T]:
    """Return what *call* does; where it fails or has to wait, a coroutine that may try again."""
    try:
        result = call(*args)
    except OSError:
        raise
    except Exception as error:
        return _tried_again(error, call, *args)
    return _awaited(result, call, *args) if isinstance(result, Coroutine) else result


async def _awaited(
    result: Coroutine[Any, Any, T], call: Callable[..., T | Coroutine[Any, Any, T]], *args: Any
) -> T:
    try:
        return await result
    except OSError:
        raise
    except Exception as error:
        return await _tried_again(error, call, *args)


async def _tried_again(
    error: Exception, call: Callable[..., T | Coroutine[Any, Any, T]], *args: Any
) -> T:
    for pause in _PAUSES_S:
        failsafe.note("swap request", error, "%s failed and is tried again")
        await trio.sleep(pause)
        try:
            result = call(*args)
            return await result if isinstance(result, Coroutine) else result
        except OSError:
            raise
        except Exception as another:
            error = another
    raise error
