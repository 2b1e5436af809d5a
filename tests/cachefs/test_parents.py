"""Parents form a tree, whatever is moved on either side."""

import os
import subprocess
import tempfile
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from mounting import mounted
from rig import ME, Rig

from tmemfs.cachefs.inodes import Inode, InodeTable

NAMES = "abcd"


def depth(table: InodeTable, inode: Inode) -> int:
    """How far a node is from the end of its walk upwards, which must have one."""
    steps = 0
    while inode.parent is not None:
        inode = inode.parent
        steps += 1
        assert steps <= len(table) + 1, "parents go round in a circle"
    return steps


async def test_a_directory_that_is_found_below_its_child(rig: Rig) -> None:
    (rig.root / "a" / "b").mkdir(parents=True)
    a, b = await rig.inode("a"), await rig.inode("a/b")
    os.rename(rig.root / "a" / "b", rig.root / "b")
    os.rename(rig.root / "a", rig.root / "b" / "a")
    # By the old way: b is still known to be in a.
    found = await rig.names.lookup_anew(b, b"a")
    assert found.inode is a
    assert a.parent is b
    assert b.parent is None
    for inode in (a, b):
        depth(rig.volume.inodes, inode)
    assert await rig.inode("b/a") is a
    assert b.parent is rig.volume.inodes.root


paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4).map("/".join)
steps = st.lists(
    st.tuples(
        st.sampled_from(["make", "move", "move behind", "remove behind", "look", "evict"]),
        paths,
        paths,
    ),
    max_size=25,
)


@settings(max_examples=60)
@given(steps)
def test_random_moves_on_both_sides(moves: list[tuple[str, str, str]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        rig = Rig(Path(name), descriptors=16)
        try:
            trio.run(_move, rig, moves)
        finally:
            rig.close()


async def _move(rig: Rig, moves: list[tuple[str, str, str]]) -> None:
    table, known = rig.volume.inodes, []
    for what, path, to in moves:
        try:
            if what == "make":
                (rig.root / path).mkdir()
            elif what == "move behind":
                os.rename(rig.root / path, rig.root / to)
            elif what == "remove behind":
                os.rmdir(rig.root / path)
            elif what == "look":
                known.append(await rig.inode(path))
            elif what == "evict":
                for inode in known:
                    if inode.fd >= 0 and not inode.pinned:
                        table.descriptors.close(inode)
            else:
                (old, _, name), (new, _, new_name) = path.rpartition("/"), to.rpartition("/")
                parents = [await rig.inode(each) if each else table.root for each in (old, new)]
                await rig.volume.modify.rename(
                    parents[0], name.encode(), parents[1], new_name.encode(), 0, ME
                )
        except OSError:
            pass
        for inode in table:
            depth(table, inode)
            assert inode in table
        # Each of them once, and no two under one number.
        assert len({inode.number for inode in table}) == len(list(table)) == len(table)
    for path in [str(found.relative_to(rig.root)) for found in rig.root.rglob("*")]:
        inode = await rig.inode(path)
        info = os.lstat(rig.root / path)
        assert inode.key == (info.st_dev, info.st_ino)
        assert (await rig.names.fstat(inode)).st_ino == info.st_ino


async def test_dots_are_no_names(rig: Rig) -> None:
    (rig.root / "a").mkdir()
    inode = await rig.inode("a")
    rig.volume.inodes.moved(inode, inode, b".")
    assert inode.parent is rig.volume.inodes.root


@pytest.mark.root
def test_moved_behind_a_working_directory(tmp_path: Path) -> None:
    """Of a mount with few descriptors: all else goes on."""
    source = tmp_path / "source"
    (source / "A" / "B").mkdir(parents=True)
    few = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))"
    options = ("-o", "attr_timeout=0,entry_timeout=0")
    with mounted(source, tmp_path / "m", *options, before=few) as mount:
        script = """
            cd B || exit 1
            mv "$1/A/B" "$1/B" && mv "$1/A" "$1/B/A" || exit 2
            stat A >/dev/null
            for n in $(seq 100); do touch "$2/f$n" || exit 3; done
            stat . .. A/.. >/dev/null
            exit 0
        """
        command = ["timeout", "30", "sh", "-c", script, "sh", source, mount.path]
        done = subprocess.run(
            [str(word) for word in command],
            cwd=mount.path / "A",
            check=False,
            stderr=subprocess.DEVNULL,
        )
        assert done.returncode == 0
        assert sorted(os.listdir(mount.path / "B")) == ["A"]
        assert mount.status()["failsafe"]["count"] == 0
