"""Nodes: few descriptors for many inodes, and never the wrong inode behind one."""

import errno
import gc
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from rig import ME, Rig, forbid_handles

from tmemfs.cachefs import inodes
from tmemfs.cachefs.source.routes import Look

LIMIT = 16
MANY = 300


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(params=["by handle", "by name"])
def small(
    request: pytest.FixtureRequest, new_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> Rig:
    """A volume with few descriptors, which reopens its nodes in one way or the other."""
    if request.param == "by name":
        forbid_handles(monkeypatch)
    elif os.geteuid():
        pytest.skip("not root: opening by handle is not permitted")
    rig = new_rig(descriptors=LIMIT)
    rig.by_name = request.param == "by name"
    return rig


async def reopen_one(rig: Rig) -> None:
    """What makes the table look at its limit again."""
    (rig.root / "one more").write_text("")
    await rig.names.fstat(await rig.inode("one more"))


async def test_few_descriptors_are_open_for_many_nodes(small: Rig) -> None:
    before = descriptors()
    for number in range(MANY):
        (small.root / str(number)).write_text(f"file {number}")
    inodes = [await small.inode(str(number)) for number in range(MANY)]
    for _ in range(2):
        for number, inode in enumerate(inodes):
            assert (await small.names.fstat(inode)).st_size == len(f"file {number}")
            assert small.volume.inodes.descriptors.count <= LIMIT
    assert descriptors() <= before + LIMIT
    assert len(small.volume.inodes) == MANY + 1
    for inode in inodes:
        small.volume.inodes.abandon(inode)
    assert len(small.volume.inodes) == 1
    assert descriptors() == before


async def test_reopened_in_deep_directories(small: Rig) -> None:
    paths = []
    for top in range(6):
        path = "/".join(f"{top}-{depth}" for depth in range(8))
        (small.root / path).mkdir(parents=True)
        (small.root / path / "f").write_text(path)
        paths.append(path + "/f")
    inodes = [await small.inode(path) for path in paths]
    for path, inode in zip(paths, inodes, strict=True):
        assert (await small.names.fstat(inode)).st_size == len(path) - 2
    assert small.volume.inodes.descriptors.count <= LIMIT


async def test_reopened_where_it_was_renamed_to(small: Rig) -> None:
    root = small.volume.inodes.root
    for number in range(40):
        (small.root / f"d{number}").mkdir()
        (small.root / f"d{number}" / "f").write_text(str(number))
    files = [await small.inode(f"d{number}/f") for number in range(40)]
    directories = [await small.inode(f"d{number}") for number in range(40)]
    for number, directory in enumerate(directories):
        await small.volume.modify.rename(directory, b"f", directory, b"g", 0, ME)
        await small.volume.modify.rename(root, b"d%d" % number, root, b"e%d" % number, 0, ME)
    # An exchange gives each of the two the other's name.
    await small.volume.modify.rename(directories[0], b"g", directories[1], b"g", 2, ME)
    for number, file in enumerate(files):
        small.volume.inodes.descriptors.close(file)
        opened, _ = await small.volume.open(file, os.O_RDONLY, ME)
        assert await small.read(opened) == str(number).encode()
        await small.volume.release(opened)


async def test_renamed_behind_the_volume(small: Rig) -> None:
    (small.root / "f").write_text("content")
    inode = await small.inode("f")
    small.volume.inodes.descriptors.close(inode)
    os.rename(small.root / "f", small.root / "g")
    if not small.by_name:
        assert (await small.names.fstat(inode)).st_size == 7
        return
    with pytest.raises(OSError, match="name is gone") as caught:
        await small.names.fstat(inode)
    assert caught.value.errno == errno.ESTALE
    # The kernel looks it up again then, and finds the same node where it is now.
    assert await small.inode("g") is inode
    assert (await small.names.fstat(inode)).st_size == 7


async def test_another_file_has_taken_the_name(small: Rig) -> None:
    (small.root / "f").write_text("old")
    inode = await small.inode("f")
    small.volume.inodes.descriptors.close(inode)
    (small.root / "new").write_text("other")
    os.rename(small.root / "new", small.root / "f")
    with pytest.raises(OSError, match=r"Stale|taken") as caught:
        await small.names.fstat(inode)
    assert caught.value.errno == errno.ESTALE
    assert await small.inode("f") is not inode


async def test_a_number_that_is_used_again_is_another_node(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    (rig.root / "f").write_text("old")
    old = await rig.inode("f")
    rig.volume.inodes.descriptors.close(old)
    # Whether the filesystem gives the number out again at once is up to it. So the same number
    # with another handle is shown instead, which is all that can be seen of it.
    info = os.stat(rig.root / "f")
    new = rig.volume.inodes.learn(rig.volume.inodes.root, b"f", Look(info, b"another handle"), 0)
    assert new is not old
    assert new.key == old.key
    assert new.object_id != old.object_id
    assert rig.volume.inodes.known(rig.volume.inodes.root, Look(info, None)) is new
    # The end of the old one does not take the new one along.
    rig.volume.inodes.abandon(old)
    assert rig.volume.inodes.known(rig.volume.inodes.root, Look(info, None)) is new


async def test_a_number_that_was_used_again_is_not_reopened(
    small: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    (small.root / "f").write_text("old")
    inode = await small.inode("f")
    small.volume.inodes.descriptors.close(inode)
    with monkeypatch.context() as patch:
        patch.setattr("tmemfs.cachefs.source.routes.file_handle", lambda *_: b"another handle")
        with pytest.raises(OSError, match="another file") as caught:
            await small.names.fstat(inode)
    assert caught.value.errno == errno.ESTALE
    assert (await small.names.fstat(inode)).st_size == 3


async def test_numbers_used_again_by_the_filesystem(rig: Rig) -> None:
    seen: dict[tuple[int, int], int] = {}
    for number in range(50):
        name = f"f{number}".encode()
        (rig.root / os.fsdecode(name)).write_text(str(number))
        inode = (await rig.names.lookup(rig.volume.inodes.root, name)).inode
        assert (*inode.key, inode.generation) not in seen
        seen[(*inode.key, inode.generation)] = number
        await rig.volume.modify.unlink(rig.volume.inodes.root, name, ME)
        rig.volume.inodes.abandon(inode)


async def test_a_node_in_use_keeps_its_descriptor(small: Rig) -> None:
    for number in range(3 * LIMIT):
        (small.root / str(number)).write_text(str(number))
    inodes = [await small.inode(str(number)) for number in range(3 * LIMIT)]
    async with AsyncExitStack() as stack:
        # More at once than the limit: all of them must work all the same.
        held = [await stack.enter_async_context(inode.open()) for inode in inodes]
        numbers = [os.stat(small.root / str(number)).st_ino for number in range(3 * LIMIT)]
        assert [os.fstat(fd).st_ino for fd in held] == numbers
    await reopen_one(small)
    async with inodes[5].open():
        assert small.volume.inodes.descriptors.count <= LIMIT


async def test_many_open_files_at_once(small: Rig) -> None:
    files = [await small.create(str(i), str(i).encode()) for i in range(3 * LIMIT)]
    for number, file in enumerate(files):
        assert await small.read(file) == str(number).encode()
    for file in files:
        await small.volume.release(file)
    await reopen_one(small)
    assert small.volume.inodes.descriptors.count <= LIMIT


async def test_unlinked_while_open_goes_on_working(small: Rig) -> None:
    file = await small.create("f", b"before")
    await small.volume.modify.unlink(small.volume.inodes.root, b"f", ME)
    for number in range(2 * LIMIT):
        (small.root / str(number)).write_text("")
        await small.names.fstat(await small.inode(str(number)))
    assert await small.volume.write(file, 6, b" and after", ME) == 10
    assert await small.read(file) == b"before and after"
    assert (await small.names.fstat(file.inode)).st_nlink == 0
    await small.volume.release(file)
    # The kernel may know the inode without having it open: a working directory, a mapping.
    assert (await small.names.fstat(file.inode)).st_nlink == 0
    small.volume.inodes.abandon(file.inode)


async def test_removed_directory_goes_on_answering(small: Rig) -> None:
    root = small.volume.inodes.root
    inode, _, _ = await small.volume.modify.mkdir(root, b"d", 0o755, ME)
    await small.volume.modify.rmdir(root, b"d", ME)
    for number in range(2 * LIMIT):
        (small.root / str(number)).write_text("")
        await small.names.fstat(await small.inode(str(number)))
    assert await small.names.listdir(inode) == b".\0..\0"
    with pytest.raises(FileNotFoundError):
        await small.volume.modify.mkdir(inode, b"below", 0o755, ME)


async def test_link_gives_a_second_name_to_the_same_node(small: Rig) -> None:
    (small.root / "a").write_text("x")
    inode = await small.inode("a")
    linked, info, _ = await small.volume.modify.link(inode, small.volume.inodes.root, b"b", ME)
    assert linked is inode
    assert info.st_nlink == 2
    await small.volume.modify.unlink(small.volume.inodes.root, b"a", ME)
    small.volume.inodes.descriptors.close(inode)
    assert (await small.names.fstat(inode)).st_nlink == 1


async def test_nothing_leads_out_of_the_directory(rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("secret")
    os.symlink(tmp_path / "outside", rig.root / "link")
    inode = await rig.inode("link")
    assert await rig.names.readlink(inode) == os.fsencode(tmp_path / "outside")
    with pytest.raises(OSError) as caught:  # noqa: PT011 - which error says that it is a link
        await rig.volume.open(inode, os.O_RDONLY, ME)
    assert caught.value.errno == errno.ELOOP


def test_closing_gives_every_descriptor_back(new_rig: Callable[..., Rig], tmp_path: Path) -> None:
    before = descriptors()
    rig = Rig(tmp_path / "source")
    rig.close()
    assert descriptors() == before


async def test_the_garbage_collector_leaves_inodes_alone(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would look at each of them, and in a million for long, while nothing is served."""
    monkeypatch.setattr(inodes, "_FROZEN", 100)
    for number in range(350):
        (rig.root / str(number)).touch()
    known = [await rig.inode(str(number)) for number in range(350)]
    try:
        looked_at = {id(each) for each in gc.get_objects()}
        assert sum(id(inode) in looked_at for inode in known) < 100
    finally:
        gc.unfreeze()
