"""Pages that are dropped on request, also while somebody reads or writes the file."""

import os

import trio
from page_data import run
from rig import ME, Rig, left_alone

CONTENT = run(1, 40)


async def test_a_dropped_file_is_read_anew(rig: Rig) -> None:
    for name in ("file", "other"):
        (rig.root / name).write_bytes(CONTENT)
        await rig.warm(name)
    assert rig.pages() == 80
    inode = await rig.inode("file")
    assert rig.volume.drop(inode) == 40
    assert rig.pages() == 40
    assert rig.volume.drop(inode) == 0
    assert not await rig.keeps("file"), "the kernel must not believe what it has of it, either"
    assert await rig.read_anew("file") == CONTENT


async def test_an_open_file_goes_on(rig: Rig) -> None:
    (rig.root / "file").write_bytes(CONTENT)
    left_alone(rig.root / "file")
    file = await rig.open("file")
    assert await rig.read(file) == CONTENT
    assert rig.volume.drop(file.inode) == 40
    assert await rig.read(file) == CONTENT
    assert await rig.volume.write(file, 5, b"new", ME) == 3
    rig.volume.drop(file.inode)
    assert await rig.read(file, 0, 10) == CONTENT[:5] + b"new" + CONTENT[8:10]
    await rig.volume.release(file)
    assert (rig.root / "file").read_bytes() == CONTENT[:5] + b"new" + CONTENT[8:]


async def test_everything_is_dropped_a_file_at_a_time(rig: Rig) -> None:
    for name in "abc":
        (rig.root / name).write_bytes(CONTENT)
        await rig.warm(name)
    counts = rig.volume.drop_all()
    assert next(counts) == 40
    # What comes while it is under way stays; what goes by itself is nothing to drop.
    (rig.root / "new").write_bytes(CONTENT)
    await rig.warm("new")
    os.unlink(rig.root / "c")
    await trio.lowlevel.checkpoint()
    assert list(counts) == [40, 40]
    assert rig.pages() == 40
    assert list(rig.volume.drop_all()) == [40]
    assert list(rig.volume.drop_all()) == []
