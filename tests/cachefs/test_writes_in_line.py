"""Small writes to a local disk are made in line, unless swap would wait or the disk is behind."""

import os
from collections.abc import Callable
from typing import Any

import pytest
from rig import FAR, LOCAL, ME, Rig

from tmemfs import threads
from tmemfs.cachefs.source import executor


@pytest.fixture
def in_threads(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was done in threads."""
    done: list[Any] = []
    run = threads.run

    async def noted(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        done.append(function)
        return await run(function, *args, **options)

    monkeypatch.setattr(threads, "run", noted)
    return done


@pytest.mark.parametrize(
    ("kind", "serves_swap", "size", "in_line"),
    [
        (LOCAL, False, 4096, True),
        (LOCAL, False, executor._WRITTEN_NOW, True),
        (LOCAL, False, executor._WRITTEN_NOW + 1, False),
        (LOCAL, True, 4096, False),
        (FAR, False, 4096, False),
    ],
)
async def test_what_is_written_in_line(
    new_rig: Callable[..., Rig],
    in_threads: list[Any],
    kind: str,
    serves_swap: bool,
    size: int,
    in_line: bool,
) -> None:
    rig = new_rig(kind=kind, serves_swap=serves_swap)
    file = await rig.create("f")
    in_threads.clear()
    assert await rig.volume.write(file, 0, b"x" * size, ME) == size
    assert (executor._write not in in_threads) is in_line
    await rig.volume.release(file)
    assert (rig.root / "f").read_bytes() == b"x" * size


async def test_a_disk_that_is_behind_holds_up_one_write(
    new_rig: Callable[..., Rig], in_threads: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = new_rig(kind=LOCAL, serves_swap=False)
    file = await rig.create("f")
    now = [1000.0]
    monkeypatch.setattr(executor.time, "monotonic", lambda: now[0])
    real = executor._write_all

    def slow(*args: Any) -> int:
        now[0] += 2 * executor._SLOW_WRITE_S
        return real(*args)

    monkeypatch.setattr(executor, "_write_all", slow)
    await rig.volume.write(file, 0, b"a", ME)
    assert executor._write not in in_threads
    for _ in range(3):
        await rig.volume.write(file, 0, b"b", ME)
    assert in_threads.count(executor._write) == 3
    now[0] += executor._SLOW_FOR_S
    await rig.volume.write(file, 0, b"c", ME)
    assert in_threads.count(executor._write) == 3
    await rig.volume.release(file)


async def test_a_write_in_line_that_fails(new_rig: Callable[..., Rig]) -> None:
    rig = new_rig(kind=LOCAL, serves_swap=False)
    file = await rig.create("f", b"old")
    fd, file.fd = file.fd, os.open(os.devnull, os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="Bad file descriptor"):
            await rig.volume.write(file, 0, b"new", ME)
    finally:
        os.close(file.fd)
        file.fd = fd
    assert await rig.read(file) == b"old"
    await rig.volume.release(file)
