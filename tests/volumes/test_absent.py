"""A name that was not there is not asked for again while its directory's times stay the same."""

import os
from collections.abc import Callable

import pytest
import trio
from rig import ME, Rig, gate, left_alone

from tmemfs.volumes import absent, tree
from tmemfs.volumes.nodes import Node

BELIEVED = 1000.0


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The names that were asked for, one by one."""
    names: list[bytes] = []
    look = tree.look

    def noted(directory: int, name: bytes) -> object:
        names.append(name)
        return look(directory, name)

    monkeypatch.setattr(tree, "look", noted)
    return names


@pytest.fixture
def new_far(new_rig: Callable[..., Rig]) -> Callable[..., Rig]:
    """Make a rig with an empty directory, as over a network, that was left alone."""

    def make(**options: object) -> Rig:
        far = {"local": False, "believe": BELIEVED, "believe_names": BELIEVED, "dated": True}
        rig = new_rig(**far | options)
        (rig.root / "d").mkdir(exist_ok=True)
        left_alone(rig.root / "d")
        return rig

    return make


async def is_there(rig: Rig, directory: Node, name: bytes = b"n") -> bool:
    try:
        await rig.tree.lookup(directory, name)
    except FileNotFoundError:
        return False
    return True


async def seen(rig: Rig) -> Node:
    """The directory, of which the attributes were just seen."""
    rig.tree.recent.clear()
    return await rig.node("d")


async def test_asked_for_once(new_far: Callable[..., Rig], asked: list[bytes]) -> None:
    rig = new_far()
    for _ in range(3):
        directory = await seen(rig)
        for _ in range(3):
            assert not await is_there(rig, directory)
    assert asked.count(b"n") == 1
    # But not if nobody has looked at the directory for long.
    rig.tree.recent.clear()
    assert not await is_there(rig, directory)
    assert asked.count(b"n") == 2


@pytest.mark.parametrize("options", [{"dated": False}, {"local": True}, {"believe": 0}])
async def test_asked_for_each_time(
    new_far: Callable[..., Rig], asked: list[bytes], options: dict[str, object]
) -> None:
    rig = new_far(**options)
    directory = await seen(rig)
    for _ in range(3):
        assert not await is_there(rig, directory)
    assert asked.count(b"n") == 3


async def test_made_behind_us(new_far: Callable[..., Rig]) -> None:
    rig = new_far()
    directory = await seen(rig)
    assert not await is_there(rig, directory)
    (rig.root / "d/n").touch()
    assert not await is_there(rig, directory)  # which the directory was believed to say
    assert await is_there(rig, await seen(rig))


async def test_made_and_removed_behind_us(new_far: Callable[..., Rig]) -> None:
    rig = new_far()
    directory = await seen(rig)
    assert not await is_there(rig, directory)
    (rig.root / "d/n").touch()
    (rig.root / "d/n").unlink()
    assert not await is_there(rig, await seen(rig))
    (rig.root / "d/n").touch()
    assert await is_there(rig, await seen(rig))


@pytest.mark.parametrize("how", ["mkdir", "rename", "link"])
async def test_made_by_us(new_far: Callable[..., Rig], how: str) -> None:
    rig = new_far()
    root, directory = rig.volume.nodes.root, await seen(rig)
    assert not await is_there(rig, directory)
    (rig.root / "file").touch()
    if how == "mkdir":
        await rig.tree.mkdir(directory, b"n", 0o755, ME)
    elif how == "rename":
        await rig.tree.rename(root, b"file", directory, b"n", 0)
    else:
        await rig.tree.link(await rig.node("file"), directory, b"n")
    assert await is_there(rig, directory)


async def test_a_directory_that_was_just_changed(new_far: Callable[..., Rig]) -> None:
    """A name that comes within the same tick of the clock leaves the same times."""
    rig = new_far()
    for _ in range(20):
        (rig.root / "d/other").touch()
        (rig.root / "d/other").unlink()
        times = os.stat(rig.root / "d")
        directory = await seen(rig)
        assert not await is_there(rig, directory)
        (rig.root / "d/n").touch()
        os.utime(rig.root / "d", ns=(times.st_atime_ns, times.st_mtime_ns))
        assert await is_there(rig, await seen(rig))
        (rig.root / "d/n").unlink()


async def test_the_directory_is_seen_while_a_name_is_asked_for(
    new_far: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name may have come in between: nothing is known of it under these times."""
    rig = new_far()
    directory = await seen(rig)
    rig.tree.recent.clear()
    with gate(monkeypatch, "look") as looked:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(is_there, rig, directory)
            await looked.reached.wait()
            (rig.root / "d/n").touch()
            left_alone(rig.root / "d")
            await rig.tree.fstat(directory)
            looked.open()
    assert await is_there(rig, directory)


async def test_no_more_names_are_kept_than_is_allowed(
    new_far: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch, asked: list[bytes]
) -> None:
    monkeypatch.setattr(absent, "_NAMES", 10)
    rig = new_far()
    directory = await seen(rig)
    for number in range(50):
        assert not await is_there(rig, directory, b"%d" % number)
        kept = rig.tree._absent
        assert kept._count == sum(len(names) for _, names in kept._names.values()) <= 10
    rig.tree.forget_recent()
    assert kept._count == 0
    directory = await seen(rig)
    assert not await is_there(rig, directory, b"49")
    assert asked.count(b"49") == 2
