"""Small files that are opened in order are read before they are asked for."""

import os
from collections.abc import Callable

import pytest
import trio
from page_data import run
from rig import FAR, Rig, left_alone

FILES = 40
NAMES = [f"f{number:02}" for number in range(FILES)]


@pytest.fixture
async def far(new_rig: Callable[..., Rig]) -> Rig:
    """Forty small files in a directory, as over a network."""
    rig = new_rig(kind=FAR, attr_ttl=60, readahead=1 << 20)
    for number, name in enumerate(NAMES):
        (rig.root / name).write_bytes(run(number, 2))
    left_alone(rig.root / NAMES[-1])
    return rig


async def listing(rig: Rig, names: list[str]) -> None:
    """As a reader of the directory makes it, in this order and in two parts."""
    root = rig.volume.inodes.root
    for start in (0, FILES // 2):
        part = [name.encode() for name in names[start : start + FILES // 2]]
        found = await rig.listed(root, part)
        rig.volume.prefetcher.listed(root, filter(None, found), first=start == 0)


async def quiet(rig: Rig) -> dict[str, int]:
    """The figures when nothing is under way any more."""
    with trio.fail_after(60):
        while rig.volume.prefetcher.under_way or rig.volume.statistics()["open_files"]:
            await trio.sleep(0)
    return rig.volume.statistics()


@pytest.mark.parametrize("order", ["as they are listed", "by name"])
async def test_files_in_order_are_read_ahead(far: Rig, order: str) -> None:
    mixed = [NAMES[number * 17 % FILES] for number in range(FILES)]
    await listing(far, mixed)
    for name in mixed if order == "as they are listed" else NAMES:
        assert await far.read_anew(name) == (far.root / name).read_bytes()
    figures = await quiet(far)
    assert figures["backing_reads"] == FILES  # each once
    assert figures["readahead_reads"] > FILES // 2


async def test_files_at_random_are_not(far: Rig) -> None:
    await listing(far, NAMES)
    for number in range(FILES):
        await far.read_anew(NAMES[number * 11 % FILES])
    assert (await quiet(far))["readahead_reads"] == 0


async def test_a_few_opens_bring_only_a_few(far: Rig) -> None:
    await listing(far, NAMES)
    for name in NAMES[:4]:
        await far.read_anew(name)
    assert 0 < (await quiet(far))["readahead_reads"] <= 12


async def test_large_and_empty_files_and_directories_are_left_out(far: Rig) -> None:
    (far.root / "f04").write_bytes(run(9, 17))
    (far.root / "f05").write_bytes(b"")
    os.unlink(far.root / "f06")
    (far.root / "f06").mkdir()
    await listing(far, NAMES)
    for name in NAMES[:4]:
        await far.read_anew(name)
    await quiet(far)
    for name, pages in (("f04", 0), ("f05", 0), ("f07", 2)):
        inode = await far.inode(name)
        assert sum(far.pool.holds(inode.object_id, 0, 20)) == pages


async def test_a_file_that_is_changed_after_it_came_is_read_again(far: Rig) -> None:
    await listing(far, NAMES)
    for name in NAMES[:4]:
        await far.read_anew(name)
    await quiet(far)
    (far.root / "f05").write_bytes(b"changed")
    assert await far.read_anew("f05") == b"changed"


async def test_a_file_that_the_kernel_forgets_meanwhile_is_forgotten_afterwards(far: Rig) -> None:
    await listing(far, NAMES)
    inodes = far.volume.inodes
    inode = await far.inode("f10")
    file = await far.open("f10", os.O_RDONLY)
    inodes.abandon(inode)
    assert await far.inode("f10") is inode  # as long as somebody has it open
    inodes.abandon(inode)
    await far.volume.release(file)
    assert inode not in inodes
    assert not inode.fd >= 0
    assert await far.read_anew("f10") == run(10, 2)
