"""Calls in threads: as many at once as there may be, each result to who asked, none too early."""

import gc
import threading
from collections.abc import Callable, Iterator

import pytest
import trio
from rig import Rig

from tmemfs.volumes import nodes
from tmemfs.volumes.threads import Threads

SECONDS = 60


@pytest.fixture
def threads() -> Iterator[Threads]:
    made = Threads(2)
    yield made
    made.close()


async def wait_until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(SECONDS):
        while not condition():
            await trio.sleep(0.001)


def double(number: int) -> int:
    return 2 * number


async def test_each_gets_what_it_asked_for(threads: Threads) -> None:
    found = {}

    async def ask(number: int) -> None:
        found[number] = await threads.run(double, number, abandon=False)

    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(ask, number)
    assert found == {number: 2 * number for number in range(100)}
    with pytest.raises(ZeroDivisionError):
        await threads.run(divmod, 1, 0, abandon=True)


async def test_no_more_at_once_than_there_are_threads(threads: Threads) -> None:
    at_work, gate = [], threading.Event()

    def wait() -> None:
        at_work.append(threading.get_ident())
        assert gate.wait(SECONDS)

    async def ask() -> None:
        await threads.run(wait, abandon=False)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask)
        await wait_until(lambda: len(at_work) == 2)
        await trio.testing.wait_all_tasks_blocked()
        assert len(at_work) == 2
        gate.set()
    assert len(at_work) == 5
    assert len(set(at_work)) == 2


@pytest.mark.parametrize("abandon", [True, False])
async def test_a_caller_that_is_cancelled(threads: Threads, abandon: bool) -> None:
    gate, done = threading.Event(), []

    def wait() -> None:
        assert gate.wait(SECONDS)
        done.append("the call")

    async def ask() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            with trio.CancelScope(shield=True) as begun:
                nursery.start_soon(cancel, begun)
                await threads.run(wait, abandon=abandon)
        done.append("the caller")

    async def cancel(scope: trio.CancelScope) -> None:
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert done == (["the caller"] if abandon else [])
        gate.set()

    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
    # The thread is there for others, whoever it was that waited.
    assert await threads.run(double, 4, abandon=True) == 8
    await wait_until(lambda: len(done) == 2)


async def test_where_no_thread_can_be_started_those_that_there_are_will_do(
    threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await threads.run(double, 1, abandon=True) == 2

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(lambda number=number: threads.run(double, number, abandon=True))


async def test_the_garbage_collector_leaves_inodes_alone(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would look at each of them, and in a million for long, while nothing is served."""
    monkeypatch.setattr(nodes, "_FROZEN", 100)
    for number in range(350):
        (rig.root / str(number)).touch()
    known = [await rig.node(str(number)) for number in range(350)]
    try:
        looked_at = {id(each) for each in gc.get_objects()}
        assert sum(id(node) in looked_at for node in known) < 100
    finally:
        gc.unfreeze()
