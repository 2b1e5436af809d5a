"""An error at any step on the way of a swap page: no byte is wrong, and the work goes on."""

import os
import random
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from injection import ERRORS, STEPS, Nth, injected
from overflow_rig import OverflowRig
from page_data import page

from tmemfs.supervise import keep
from tmemfs.swap.swapfile import OpenSwap, SwapFile
from tmemfs.swap.writebuffer import WriteBuffer
from tmemfs.tmem import MIN_BUDGET

PAGE = 4096
PAGES = 3 * MIN_BUDGET // PAGE
# So many calls of each step are made to fail, one after the other, spread over the work.
TRIED = 3
SECONDS = 20
KINDS = ("raw", "raw", "text", "zero")


class Pages:
    """What may be in each page of a volume: what was written last, or what failed to be."""

    def __init__(self, count: int) -> None:
        self._may_be = [{bytes(PAGE)} for _ in range(count)]

    def wrote(self, first: int, data: bytes, *, failed: bool) -> None:
        for index, at in enumerate(range(0, len(data), PAGE), first):
            new = data[at : at + PAGE]
            self._may_be[index] = self._may_be[index] | {new} if failed else {new}

    def wrote_part(self, index: int, start: int, data: bytes, *, failed: bool) -> None:
        news = {old[:start] + data + old[start + len(data) :] for old in self._may_be[index]}
        self._may_be[index] = self._may_be[index] | news if failed else news

    def wrong(self, first: int, data: bytes) -> list[int]:
        """The pages of *data* that are none of what they may be."""
        pages = enumerate(range(0, len(data), PAGE), first)
        return [index for index, at in pages if data[at : at + PAGE] not in self._may_be[index]]


async def work(volume: OpenSwap, pages: Pages, seed: int, steps: int) -> None:
    """Random writes, reads and holes; what is read must be right whatever failed."""
    chooser = random.Random(seed)
    for step in range(steps):
        first = chooser.randrange(PAGES - 64)
        what = chooser.choice("wwwwprrh")
        count = chooser.choice((1, 1, 8, 64)) if what == "w" else chooser.choice((1, 8))
        data = b"".join(
            page(seed * 100_000 + step * 64 + n, kind=chooser.choice(KINDS)) for n in range(count)
        )
        failed = False
        if what == "r":
            try:
                found = await do(volume.read(first * PAGE, count * PAGE))
            except OSError:
                continue
            whole = len(found) // PAGE * PAGE
            assert pages.wrong(first, bytes(found)[:whole]) == [], f"read at step {step}"
        elif what == "p":
            start, part = chooser.randrange(1, 2000), data[:2000]
            try:
                await do(volume.write(first * PAGE + start, part))
            except OSError:
                failed = True
            pages.wrote_part(first, start, part, failed=failed)
        else:
            data = bytes(len(data)) if what == "h" else data
            try:
                if what == "h":
                    await volume.fallocate(3, first * PAGE, len(data))
                else:
                    await do(volume.write(first * PAGE, data))
            except Exception as error:
                assert what == "h" or isinstance(error, OSError)
                failed = True
            pages.wrote(first, data, failed=failed)
        if chooser.random() < 0.2:
            await trio.sleep(0.001)


async def check(volume: OpenSwap, pages: Pages) -> None:
    for first in range(0, PAGES, 64):
        count = min(64, PAGES - first)
        data = bytes(await do(volume.read(first * PAGE, count * PAGE)))
        assert len(data) == count * PAGE
        assert pages.wrong(first, data) == []


async def do(result: Any) -> Any:
    return await result if isinstance(result, Coroutine) else result


@asynccontextmanager
async def served(directory: Path) -> AsyncIterator[tuple[OverflowRig, OpenSwap]]:
    """A volume with an overflow file and all that works for it, kept as the daemon keeps it."""
    rig = OverflowRig(directory, MIN_BUDGET)
    try:
        buffer = WriteBuffer(rig.add(PAGES * PAGE))
        with trio.fail_after(SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(keep, rig.evictor.run)
                nursery.start_soon(keep, buffer.run)
                yield rig, await SwapFile(buffer).open(os.O_RDWR)
                nursery.cancel_scope.cancel()
    finally:
        rig.close()


def calls_of(step: str, directory: Path) -> int:
    """How often the work makes a step when nothing fails."""
    counted = Nth(0, MemoryError)

    async def run() -> None:
        async with served(directory) as (_, volume):
            await work(volume, Pages(PAGES), 1, STEPS_OF_WORK)

    with injected(step, counted):
        trio.run(run)
    return counted.calls


STEPS_OF_WORK = 120


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed is tried again soon. (The clock is the real one: threads are at work.)"""
    monkeypatch.setattr("tmemfs.supervise._PAUSE_S", 0.001)
    monkeypatch.setattr("tmemfs.swap.evictor._PAUSES_S", (0.001, 0.01, 0.1))
    monkeypatch.setattr("tmemfs.swap.swapfile._PAUSES_S", (0.001, 0.01, 0.1))


@pytest.mark.expects_log
@pytest.mark.usefixtures("short_pauses")
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("step", STEPS)
def test_one_error(step: str, error: str, tmp_path: Path) -> None:
    calls = calls_of(step, tmp_path)
    assert calls, "the work does not come by this step"
    for tried in range(TRIED):
        nth = Nth(1 + tried * (calls - 1) // TRIED, ERRORS[error])

        async def run(nth: Nth = nth) -> None:
            pages = Pages(PAGES)
            async with served(tmp_path) as (_, volume):
                with injected(step, nth):
                    await work(volume, pages, 1, STEPS_OF_WORK)
                await check(volume, pages)

        trio.run(run)
        assert nth.calls
