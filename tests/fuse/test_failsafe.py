"""Whatever a handler raises, the kernel gets an errno and the mount lives on."""

import errno
import logging

import pyfuse3
import pytest
import trio

from tmemfs.errors import CorruptPage
from tmemfs.fuse.failsafe import handler
from tmemfs.supervise import Failsafe


class Room:
    """Something with one handler."""

    def __init__(self) -> None:
        self.failsafe = Failsafe()
        self.were_stale = 0

    def stale(self) -> None:
        self.were_stale += 1

    @handler
    async def ask(self, what: object) -> object:
        if isinstance(what, BaseException):
            raise what
        return what


async def _errno(room: Room, error: BaseException) -> int:
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await room.ask(error)
    return int(caught.value.errno)


async def test_an_answer_passes() -> None:
    assert await Room().ask(7) == 7


async def test_an_os_error_is_its_errno() -> None:
    room = Room()
    assert await _errno(room, OSError(errno.ESTALE, "gone")) == errno.ESTALE
    assert room.were_stale == 1
    assert await _errno(room, FileNotFoundError(errno.ENOENT, "gone")) == errno.ENOENT
    assert await _errno(room, OSError("without a number")) == errno.EIO
    assert await _errno(room, pyfuse3.FUSEError(errno.ENODATA)) == errno.ENODATA
    assert room.failsafe.statistics() == {"count": 0, "last": None}


@pytest.mark.parametrize(
    "error", [ValueError("so"), KeyError("k"), MemoryError(), RecursionError(), CorruptPage("p")]
)
@pytest.mark.expects_log("handler ask failed")
async def test_anything_else_is_told_once(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    room = Room()
    assert await _errno(room, error) == errno.EIO
    assert room.failsafe.count == 1
    assert room.failsafe.last == f"ask: {type(error).__name__}: {error}"
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info is not None
    assert record.exc_info[1] is error


async def test_the_end_of_the_mount_passes() -> None:
    room = Room()
    with trio.CancelScope() as scope:
        scope.cancel()

        class Waiting(Room):
            @handler
            async def wait(self) -> None:
                await trio.sleep_forever()

        await Waiting().wait()
    assert scope.cancelled_caught
    with pytest.raises(KeyboardInterrupt):
        await room.ask(KeyboardInterrupt())
    assert room.failsafe.count == 0
