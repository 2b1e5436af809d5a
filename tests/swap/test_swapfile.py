"""A swap volume is open for writing once, and what fails for a moment is tried again."""

import errno
import os

import pytest
import trio
from page_data import run
from trio.testing import MockClock, wait_all_tasks_blocked

from tmemfs import supervise
from tmemfs.swap.swapfile import OpenSwap, SwapFile
from tmemfs.swap.volume import PAGE_SIZE, SwapVolume
from tmemfs.swap.writebuffer import WriteBuffer
from tmemfs.tmem import Core


@pytest.fixture
def file() -> SwapFile:
    pool = Core(8 << 20).new_client("test").new_pool("s", kind="persistent")
    return SwapFile(WriteBuffer(SwapVolume("s", 1 << 20, pool)))


async def refused(file: SwapFile, flags: int) -> bool:
    with pytest.raises(OSError, match="busy") as caught:
        await file.open(flags)
    return caught.value.errno == errno.ETXTBSY


async def test_open_for_writing_once(file: SwapFile, autojump_clock: MockClock) -> None:
    assert not file.in_use
    first = await file.open(os.O_RDWR)
    assert file.in_use
    assert await refused(file, os.O_RDWR)
    assert await refused(file, os.O_WRONLY | os.O_DIRECT)
    reader = await file.open(os.O_RDONLY)
    first.release()
    second = await file.open(os.O_WRONLY)
    assert await refused(file, os.O_RDWR)
    second.release()
    assert file.in_use, "who only reads it is no less in the way of its end"
    reader.release()
    assert not file.in_use


async def test_a_close_that_is_heard_of_late(
    file: SwapFile, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    first = await file.open(os.O_RDWR)
    opened: list[OpenSwap] = []

    async def open_it() -> None:
        opened.append(await file.open(os.O_RDWR))

    nursery.start_soon(open_it)
    await wait_all_tasks_blocked()
    assert not opened
    first.release()
    await wait_all_tasks_blocked()
    assert opened


async def test_of_those_who_wait_one_gets_it(
    file: SwapFile, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    first = await file.open(os.O_RDWR)
    outcomes: list[object] = []

    async def open_it() -> None:
        try:
            outcomes.append(await file.open(os.O_RDWR))
        except OSError as error:
            outcomes.append(error.errno)

    for _ in range(4):
        nursery.start_soon(open_it)
    await wait_all_tasks_blocked()
    first.release()
    await trio.sleep(10)
    assert [type(outcome) for outcome in outcomes].count(OpenSwap) == 1
    assert outcomes.count(errno.ETXTBSY) == 3


class Failing:
    """A call that fails so many times, and what it does then."""

    def __init__(self, times: int, error: Exception, result: object, *, waits: bool) -> None:
        self.left = times
        self._error, self._result, self._waits = error, result, waits

    def __call__(self, *args: object) -> object:
        return self._wait() if self._waits else self._try()

    def _try(self) -> object:
        if self.left:
            self.left -= 1
            raise self._error
        return self._result

    async def _wait(self) -> object:
        await trio.lowlevel.checkpoint()
        return self._try()


@pytest.mark.expects_log("swap request failed")
@pytest.mark.parametrize("error", [MemoryError(), ValueError("wrong"), KeyError(1)], ids=repr)
@pytest.mark.parametrize("waits", [False, True])
async def test_a_request_that_fails_for_a_moment_is_tried_again(
    file: SwapFile,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    waits: bool,
) -> None:
    data, count = run(1, 2), supervise.failsafe.count
    monkeypatch.setattr(file.buffer, "read", Failing(2, error, data, waits=waits))
    monkeypatch.setattr(file.buffer, "write", Failing(3, error, len(data), waits=waits))
    opened = await file.open(os.O_RDWR)
    assert await opened.read(0, 2 * PAGE_SIZE) == data
    assert await opened.write(0, data) == len(data)
    assert supervise.failsafe.count == count + 5
    # For good, it is an error after all; and what the system says is one at once.
    monkeypatch.setattr(file.buffer, "read", Failing(100, error, data, waits=waits))
    with pytest.raises(type(error)):
        await opened.read(0, PAGE_SIZE)
    full = Failing(1, OSError(errno.ENOSPC, "full"), 0, waits=waits)
    monkeypatch.setattr(file.buffer, "write", full)
    with pytest.raises(OSError, match="full"):
        written = opened.write(0, data)
        assert not isinstance(written, int)
        await written
    assert full.left == 0
