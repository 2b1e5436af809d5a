"""A request that lacks a descriptor is made again, until it is the source that has none."""

import errno
import os

import pytest
import trio
from trio.testing import MockClock

from tmemfs.cachefs.backingfiles import TooManyOpen
from tmemfs.fuse.shortage import Shortage, lacks_descriptor


def _none_left() -> OSError:
    return OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def test_an_answer_is_no_shortage() -> None:
    assert lacks_descriptor(_none_left())
    assert not lacks_descriptor(TooManyOpen(errno.ENFILE, "others need them"))
    assert not lacks_descriptor(OSError(errno.EIO, "broken"))


@pytest.mark.expects_log("no more descriptors")
async def test_it_is_made_again_and_told_once(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    shortage = Shortage()
    tries = dict.fromkeys(range(20), 0)

    async def request(number: int) -> int:
        tries[number] += 1
        if tries[number] < 4:
            raise _none_left()
        return number

    async def ask(number: int) -> None:
        assert await shortage.again(lambda: request(number)) == number

    async with trio.open_nursery() as nursery:
        for number in tries:
            nursery.start_soon(ask, number)
    assert set(tries.values()) == {4}
    assert caplog.text.count("no more descriptors") == 1


@pytest.mark.expects_log("no more descriptors")
async def test_where_the_source_has_none_it_is_told(autojump_clock: MockClock) -> None:
    async def request() -> None:
        raise _none_left()

    with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
        await Shortage().again(request)


@pytest.mark.expects_log("no more descriptors")
async def test_another_error_is_told_at_once(autojump_clock: MockClock) -> None:
    async def request() -> None:
        raise FileNotFoundError(errno.ENOENT, "gone")

    with pytest.raises(FileNotFoundError):
        await Shortage().again(request)
