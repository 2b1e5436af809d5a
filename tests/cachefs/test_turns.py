"""Long work in line is done in slices, and others come to their turn in between."""

from collections.abc import Callable

import pytest
import trio
from rig import FAR, LOCAL, ME, Rig, gate

from tmemfs.cachefs.source import executor
from tmemfs.cachefs.source.turns import Turns


@pytest.fixture(autouse=True)
def no_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slice is used up at once, so that what happens does not depend on the time."""
    monkeypatch.setattr(executor, "_SLICE_S", 0.0)


async def test_of_all_at_long_work_one_goes_on_each_time_around() -> None:
    shared, done = Turns(0.0), []

    async def long_work(who: str) -> None:
        slices = shared.begin()
        for _ in range(5):
            await slices.rest()
            done.append(who)

    async def look_on() -> None:
        while done.count("look") < 40:
            done.append("look")
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for who in "abc":
            nursery.start_soon(long_work, who)
        nursery.start_soon(look_on)
    work = [who for who in done if who != "look"]
    # Nobody gets a second slice before everybody had theirs.
    assert all(set(work[start : start + 3]) == set("abc") for start in range(0, 15, 3))
    # One slice each time around, before or after the others who are served then.
    assert all("look" in done[start : start + 3] for start in range(len(done) - 2))


async def test_within_its_slice_nobody_waits() -> None:
    slices, others = Turns(1e9).begin(), 0

    async def look_on() -> None:
        nonlocal others
        others += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look_on)
        for _ in range(1000):
            await slices.rest()
        assert not others


@pytest.mark.parametrize("kind", [LOCAL, FAR])
async def test_a_listing_and_a_change_wait_in_threads(
    new_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Also where the filesystem is local: a directory may be cold, or large, or frozen."""
    rig = new_rig(kind=kind)
    (rig.root / "f").write_text("x")
    inode, root = await rig.inode("f"), rig.volume.inodes.root
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            with gate(monkeypatch, "listdir", before=True) as listing:
                nursery.start_soon(rig.names.listdir, root)
                await listing.reached.wait()
                with gate(monkeypatch, "chmod", before=True) as change:
                    nursery.start_soon(rig.volume.modify.chmod, inode, 0o600, ME)
                    await change.reached.wait()
                    assert (await rig.names.fstat(inode)).st_size == 1
                    assert (await rig.names.lookup(root, b"f")).inode is inode


async def test_what_the_kernel_does_not_have_in_memory_is_looked_up_in_a_thread(
    new_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = new_rig(kind=LOCAL)
    (rig.root / "warm").write_text("x")
    (rig.root / "cold").write_text("x")
    warm = await rig.inode("warm")
    with gate(monkeypatch, "look", before=True) as looking:
        assert await rig.inode("warm") is warm
        monkeypatch.setattr("tmemfs.cachefs.names.look_cached", lambda *_: None)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(rig.inode, "cold")
                await looking.reached.wait()
                assert (await rig.names.fstat(warm)).st_size == 1
                looking.open()
