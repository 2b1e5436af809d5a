"""Misses that share a read, reads ahead, and what a stuck file may take."""

import errno
import os
from collections.abc import Callable

import pytest
import trio
from page_data import run
from rig import FAR, ME, Rig, gate

from tmemfs.cachefs.source import executor

PAGE = 4096


@pytest.fixture
def slow(new_rig: Callable[..., Rig]) -> Rig:
    """As over a network: nothing is read without a thread."""
    return new_rig(kind=FAR, attr_ttl=60)


def write(rig: Rig, name: str, pages: int, seed: int = 1) -> bytes:
    content = run(seed, pages)
    (rig.root / name).write_bytes(content)
    return content


async def test_misses_of_one_range_are_read_once(
    slow: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = write(slow, "f", 8)
    file = await slow.open("f")
    seen: list[bytes] = []

    async def read(offset: int, size: int) -> None:
        seen.append(await slow.read(file, offset, size))
        assert seen[-1] == content[offset : offset + size]

    async with trio.open_nursery() as nursery:
        with gate(monkeypatch, "_read_all") as reading:
            nursery.start_soon(read, 0, 8 * PAGE)
            await reading.reached.wait()
            for _ in range(10):
                nursery.start_soon(read, 0, 8 * PAGE)
                nursery.start_soon(read, 3 * PAGE + 5, PAGE)
            await trio.testing.wait_all_tasks_blocked()
    assert len(seen) == 21
    figures = slow.volume.statistics()
    assert (figures["backing_reads"], figures["shared_reads"]) == (1, 20)
    await slow.volume.release(file)


async def test_what_is_read_in_part_already_is_read_in_part(
    slow: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = write(slow, "f", 8)
    file = await slow.open("f")
    async with trio.open_nursery() as nursery:
        with gate(monkeypatch, "_read_all") as reading:
            nursery.start_soon(slow.read, file, 2 * PAGE, 2 * PAGE)
            await reading.reached.wait()

            async def all_of_it() -> None:
                assert await slow.read(file) == content

            nursery.start_soon(all_of_it)
            await trio.testing.wait_all_tasks_blocked()
    assert slow.volume.statistics()["backing_read_bytes"] == len(content)
    await slow.volume.release(file)


async def test_whoever_waited_for_a_read_that_fails_tries_itself(
    slow: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = write(slow, "f", 2)
    file = await slow.open("f")
    real, results = executor._read_all, []

    def fail(*args: int) -> bytes:
        monkeypatch.setattr(executor, "_read_all", real)
        trio.from_thread.run(trio.testing.wait_all_tasks_blocked)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async def read() -> None:
        try:
            results.append(await slow.read(file))
        except OSError as error:
            results.append(error.errno)

    monkeypatch.setattr(executor, "_read_all", fail)
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(read)
    assert sorted(results, key=str) == sorted([errno.EIO, content, content], key=str)
    await slow.volume.release(file)


async def test_a_miss_after_a_write_does_not_share_a_read_from_before(
    slow: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = write(slow, "f", 4)
    file = await slow.open("f")
    async with trio.open_nursery() as nursery:
        with gate(monkeypatch, "_read_all") as reading:
            nursery.start_soon(slow.read, file)
            await reading.reached.wait()  # it has the old bytes
            await slow.volume.write(file, 0, b"new", ME)

            async def read() -> None:
                assert await slow.read(file) == b"new" + content[3:]

            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
    await slow.volume.release(file)


async def test_a_large_miss_is_answered_before_it_is_in_the_pool(slow: Rig) -> None:
    content = write(slow, "f", 256)
    file = await slow.open("f")
    found = slow.volume.read(file, 0, 1 << 20)
    assert bytes(await found) == content  # type: ignore[misc]
    assert slow.pages() == 0
    # Who asks meanwhile finds it all the same, and so does nobody who comes after a change.
    assert bytes(await slow.volume.read(file, PAGE, PAGE)) == content[PAGE : 2 * PAGE]  # type: ignore[misc]
    await slow.settled(file)
    assert slow.pages() == 256
    assert slow.volume.statistics()["backing_reads"] == 1
    await slow.volume.release(file)


async def test_a_file_that_is_closed_at_once_is_kept_all_the_same(slow: Rig) -> None:
    content = write(slow, "f", 256)
    file = await slow.open("f", os.O_RDONLY)
    data = file.data
    await slow.volume.read(file, 0, 1 << 20)  # type: ignore[misc]
    await slow.volume.release(file)
    with trio.fail_after(60):
        while data.fills:
            await trio.sleep(0)
    assert slow.pages() == 256
    await trio.testing.wait_all_tasks_blocked()
    assert slow.volume.statistics()["open_files"] == 0
    assert await slow.read_anew("f") == content


async def test_reads_in_order_are_read_ahead_of(new_rig: Callable[..., Rig]) -> None:
    rig = new_rig(kind=FAR, attr_ttl=60, readahead=1 << 20)
    content = write(rig, "f", 1024)
    file = await rig.open("f", os.O_RDONLY)
    for index in range(1024):
        page = await rig.read(file, index * PAGE, PAGE)
        assert page == content[index * PAGE : (index + 1) * PAGE]
    figures = rig.volume.statistics()
    assert figures["readahead_pages"] == 1023
    assert figures["backing_read_bytes"] == len(content)
    assert figures["backing_reads"] < 24
    await rig.volume.release(file)


async def test_nobody_waits_for_what_is_read_ahead(
    new_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = new_rig(kind=FAR, attr_ttl=60, readahead=1 << 20)
    content = write(rig, "f", 64)
    file = await rig.open("f", os.O_RDONLY)
    real = executor._read_all
    hold = trio.Event()

    def read(fd: int, offset: int, size: int) -> bytes:
        if offset:
            trio.from_thread.run(hold.wait)
        return real(fd, offset, size)

    monkeypatch.setattr(executor, "_read_all", read)
    with trio.fail_after(60):
        assert bytes(await rig.volume.read(file, 0, PAGE)) == content[:PAGE]  # type: ignore[misc]
        # Closed while it is under way: the file stays open for as long as that takes.
        await rig.volume.release(file)
        hold.set()
        while file.data.fills:
            await trio.sleep(0)
    assert await rig.read_anew("f") == content


async def test_a_stuck_file_takes_no_more_than_its_threads(
    slow: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = write(slow, "f", 1)
    write(slow, "stuck", 100)
    stuck, other = await slow.open("stuck"), await slow.open("f")
    reader = await slow.volume.files.reader(stuck)
    real, hold = executor._read_all, trio.Event()

    def read(fd: int, offset: int, size: int) -> bytes:
        if fd == reader:
            trio.from_thread.run(hold.wait)
        return real(fd, offset, size)

    monkeypatch.setattr(executor, "_read_all", read)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for index in range(0, 100, 2):
                nursery.start_soon(slow.read, stuck, index * PAGE, PAGE)
            await trio.testing.wait_all_tasks_blocked()
            assert slow.volume.statistics()["threads_waiting"] == executor._THREADS_OF_A_FILE
            assert await slow.read(other) == content
            hold.set()
    for file in (stuck, other):
        await slow.volume.release(file)
