"""The numbers of inodes: the backing directory's own, for as long as the kernel knows them."""

import errno
import os

import pyfuse3
import pytest
from as_root import tmpfs_at

from tmemfs.cachefs.inodes import OWN_NUMBERS, InodeTable
from tmemfs.cachefs.source.routes import Look


@pytest.fixture
def table(handlers) -> InodeTable:
    return handlers.operations._inodes


async def test_numbers_are_those_of_the_backing_directory(handlers, table: InodeTable) -> None:
    (handlers.rig.root / "f").write_text("")
    inode = await handlers.rig.inode("f")
    assert inode.number == os.stat(handlers.rig.root / "f").st_ino
    assert handlers.rig.volume.inodes.root.number == pyfuse3.ROOT_INODE
    assert table.inode(pyfuse3.ROOT_INODE) is handlers.rig.volume.inodes.root


async def test_a_node_is_known_until_every_lookup_is_forgotten(handlers, table: InodeTable) -> None:
    (handlers.rig.root / "f").write_text("")
    inode = await handlers.rig.inode("f")
    number = inode.number
    with pytest.raises(OSError, match="Stale"):
        table.inode(number)
    for _ in range(3):
        table.remember(inode)
    table.forget(number, 2)
    assert table.inode(number) is inode
    table.forget(number, 1)
    assert len(table) == 1
    with pytest.raises(OSError, match="Stale") as caught:
        table.inode(number)
    assert caught.value.errno == errno.ESTALE


async def test_forgetting_too_much_or_the_unknown_does_no_harm(handlers, table: InodeTable) -> None:
    (handlers.rig.root / "f").write_text("")
    inode = await handlers.rig.inode("f")
    table.remember(inode)
    table.forget(inode.number, 1000)
    table.forget(inode.number, 1)
    table.forget(12345, 1)
    table.forget(pyfuse3.ROOT_INODE, 1)
    assert table.inode(pyfuse3.ROOT_INODE) is handlers.rig.volume.inodes.root


async def test_a_number_that_is_used_again_means_the_new_node(handlers, table: InodeTable) -> None:
    rig = handlers.rig
    (rig.root / "f").write_text("")
    old = await rig.inode("f")
    table.remember(old)
    number = old.number
    rig.volume.inodes.descriptors.close(old)
    root = rig.volume.inodes.root
    new = rig.volume.inodes.learn(root, b"f", Look(os.stat(rig.root / "f"), b"another handle"), 0)
    table.remember(new)
    assert new.number == number
    assert table.inode(number) is new
    # The kernel counts both under the number; the node stays until all is forgotten.
    table.forget(number, 1)
    assert table.inode(number) is new
    table.forget(number, 1)
    assert rig.volume.inodes.known(root, Look(os.stat(rig.root / "f"), None)) is None


@pytest.mark.root
async def test_other_filesystems_below_have_numbers_of_our_own(handlers, table: InodeTable) -> None:
    rig = handlers.rig
    with tmpfs_at(rig.root / "below") as below:
        for name in ("a", "b"):
            (below / name).write_text(name)
        one, two = await rig.inode("below/a"), await rig.inode("below/b")
        assert OWN_NUMBERS < one.number != two.number > OWN_NUMBERS
        table.remember(one)
        number = one.number
        assert number not in handlers.control
        assert await rig.read_anew("below/b") == b"b"
        table.forget(number, 1)
        assert one not in table
        with pytest.raises(OSError, match="Stale"):
            table.inode(number)
