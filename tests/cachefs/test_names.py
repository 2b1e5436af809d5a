"""Names and attributes: each operation does, and fails, as its namesake in the VFS."""

import errno
import os
import stat
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from rig import FAR, LOCAL, ME, Rig

from tmemfs.cachefs.inodes import Node
from tmemfs.cachefs.source.closing import Closer
from tmemfs.cachefs.source.create import Caller


@pytest.fixture(
    params=[(LOCAL, False), (LOCAL, True), (FAR, True)],
    ids=["in line", "changes in threads", "in threads"],
)
def rig(request: pytest.FixtureRequest, new_rig: Callable[..., Rig]) -> Rig:
    return new_rig(kind=request.param[0], serves_swap=request.param[1])


@pytest.fixture
def root(rig: Rig) -> Node:
    return rig.volume.nodes.root


async def fails(code: int, call: Coroutine[Any, Any, Any]) -> None:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - compared below
        await call
    assert caught.value.errno == code, caught.value


async def test_lookup(rig: Rig, root: Node) -> None:
    (rig.root / "f").write_text("x")
    node, info, _ = await rig.tree.lookup(root, b"f")
    assert info.st_ino == os.stat(rig.root / "f").st_ino
    assert not node.is_directory
    assert (await rig.tree.lookup(root, b"f"))[0] is node
    await fails(errno.ENOENT, rig.tree.lookup(root, b"none"))
    await fails(errno.ENAMETOOLONG, rig.tree.lookup(root, b"n" * 256))
    await fails(errno.ENOTDIR, rig.tree.lookup(node, b"below"))


async def test_listdir(rig: Rig, root: Node) -> None:
    names = {b"a", b"\xff\xfe", b"new\nline", b".hidden"}
    for name in names:
        os.close(os.open(os.path.join(os.fsencode(rig.root), name), os.O_CREAT))
    assert (await rig.tree.listdir(root)).startswith(b".\0..\0")
    assert set((await rig.tree.listdir(root)).split(b"\0")) - {b".", b"..", b""} == names
    await fails(errno.ENOTDIR, rig.tree.listdir(await rig.node("a")))


async def test_mkdir_and_rmdir(rig: Rig, root: Node) -> None:
    node, info, _ = await rig.tree.mkdir(root, b"d", stat.S_IFDIR | 0o750, ME)
    assert node.is_directory
    assert stat.S_IMODE(info.st_mode) == 0o750
    await fails(errno.EEXIST, rig.tree.mkdir(root, b"d", 0o755, ME))
    await rig.tree.mkdir(node, b"below", 0o700, ME)
    await fails(errno.ENOTEMPTY, rig.tree.rmdir(root, b"d", ME))
    await fails(errno.EISDIR, rig.tree.unlink(root, b"d", ME))
    await rig.tree.rmdir(node, b"below", ME)
    await rig.tree.rmdir(root, b"d", ME)
    await fails(errno.ENOENT, rig.tree.rmdir(root, b"d", ME))


async def test_symlink_and_readlink(rig: Rig, root: Node) -> None:
    node, info, _ = await rig.tree.symlink(root, b"l", b"some/\xff", ME)
    assert stat.S_ISLNK(info.st_mode)
    assert await rig.tree.readlink(node) == b"some/\xff"
    await fails(errno.EEXIST, rig.tree.symlink(root, b"l", b"x", ME))
    (rig.root / "f").write_text("")
    # What readlink(2) says of an empty path whose descriptor is no link.
    await fails(errno.ENOENT, rig.tree.readlink(await rig.node("f")))


async def test_mknod_of_a_fifo(rig: Rig, root: Node) -> None:
    _, info, _ = await rig.tree.mknod(root, b"p", stat.S_IFIFO | 0o640, 0, ME)
    assert stat.S_ISFIFO(info.st_mode)
    await fails(errno.EEXIST, rig.tree.mknod(root, b"p", stat.S_IFIFO | 0o640, 0, ME))


async def test_link(rig: Rig, root: Node) -> None:
    (rig.root / "f").write_text("x")
    os.mkdir(rig.root / "d")
    node = await rig.node("f")
    linked, info, _ = await rig.tree.link(node, await rig.node("d"), b"g", ME)
    assert linked is node
    assert info.st_nlink == 2
    await fails(errno.EEXIST, rig.tree.link(node, root, b"f", ME))
    await fails(errno.EPERM, rig.tree.link(await rig.node("d"), root, b"e", ME))


async def test_unlink(rig: Rig, root: Node) -> None:
    (rig.root / "f").write_text("x")
    await rig.tree.unlink(root, b"f", ME)
    assert os.listdir(rig.root) == []
    await fails(errno.ENOENT, rig.tree.unlink(root, b"f", ME))
    os.mkdir(rig.root / "d")
    await rig.node("d")
    await fails(errno.EISDIR, rig.tree.unlink(root, b"d", ME))


async def test_rename(rig: Rig, root: Node) -> None:
    for name in ("a", "b"):
        (rig.root / name).write_text(name)
    os.makedirs(rig.root / "d" / "full")
    await fails(errno.EEXIST, rig.tree.rename(root, b"a", root, b"b", 1, ME))
    await rig.tree.rename(root, b"a", root, b"b", 2, ME)
    assert (rig.root / "a").read_text() == "b"
    await rig.tree.rename(root, b"a", root, b"b", 0, ME)
    assert sorted(os.listdir(rig.root)) == ["b", "d"]
    directory = await rig.node("d")
    await fails(errno.ENOENT, rig.tree.rename(root, b"none", root, b"x", 0, ME))
    await fails(errno.EISDIR, rig.tree.rename(root, b"b", root, b"d", 0, ME))
    await fails(errno.ENOTDIR, rig.tree.rename(root, b"d", root, b"b", 0, ME))
    await fails(errno.EINVAL, rig.tree.rename(root, b"d", directory, b"e", 0, ME))
    await fails(errno.EINVAL, rig.tree.rename(root, b"b", root, b"c", 1 << 10, ME))
    os.mkdir(rig.root / "e")
    await fails(errno.ENOTEMPTY, rig.tree.rename(root, b"e", root, b"d", 0, ME))


async def test_chmod(rig: Rig) -> None:
    (rig.root / "f").write_text("x")
    node = await rig.node("f")
    await rig.tree.chmod(node, stat.S_IFREG | 0o4711, ME)
    assert stat.S_IMODE(os.stat(rig.root / "f").st_mode) == 0o4711


async def test_utimens_has_nanoseconds(rig: Rig) -> None:
    (rig.root / "f").write_text("x")
    os.symlink("f", rig.root / "l")
    times = (123_456_789_000_000_001, 987_654_321_000_000_007)
    for name in ("f", "l"):
        await rig.tree.utimens(await rig.node(name), times, ME)
        info = os.lstat(rig.root / name)
        assert (info.st_atime_ns, info.st_mtime_ns) == times


async def test_xattrs(rig: Rig) -> None:
    (rig.root / "f").write_text("x")
    node = await rig.node("f")
    await rig.tree.setxattr(node, b"user.x", b"\0\xff", ME)
    assert await rig.tree.getxattr(node, b"user.x") == b"\0\xff"
    assert await rig.tree.listxattr(node) == [b"user.x"]
    await rig.tree.removexattr(node, b"user.x", ME)
    await fails(errno.ENODATA, rig.tree.getxattr(node, b"user.x"))
    await fails(errno.ENODATA, rig.tree.removexattr(node, b"user.x", ME))
    await fails(errno.EOPNOTSUPP, rig.tree.setxattr(node, b"nonsense", b"x", ME))


async def test_statfs(rig: Rig) -> None:
    assert (await rig.tree.statfs(rig.volume.nodes.root)).f_blocks == os.statvfs(rig.root).f_blocks


async def test_create_never_opens_what_is_there(rig: Rig, root: Node) -> None:
    """Whether the caller may open it, only the kernel can say: it has to look again."""
    (rig.root / "f").write_text("of somebody else")
    await fails(errno.ESTALE, rig.tree.create(root, b"f", 0o644, os.O_RDWR, ME))
    await fails(errno.EEXIST, rig.tree.create(root, b"f", 0o644, os.O_RDWR | os.O_EXCL, ME))
    os.symlink("f", rig.root / "l")
    await fails(errno.ESTALE, rig.tree.create(root, b"l", 0o644, os.O_RDWR, ME))
    assert (rig.root / "f").read_text() == "of somebody else"


@pytest.mark.skipif(os.geteuid() != 0, reason="not root")
async def test_what_is_made_belongs_to_the_caller(rig: Rig, root: Node) -> None:
    rig.root.chmod(0o777)
    caller = Caller(1234, 5678)
    os.close(await rig.tree.create(root, b"f", 0o4755, os.O_RDWR, caller))
    await rig.tree.mkdir(root, b"d", 0o2755, caller)
    await rig.tree.symlink(root, b"l", b"x", caller)
    await rig.tree.mknod(root, b"p", stat.S_IFIFO | 0o600, 0, caller)
    for name in ("f", "d", "l", "p"):
        info = os.lstat(rig.root / name)
        assert (info.st_uid, info.st_gid) == (1234, 5678)
    assert stat.S_IMODE(os.stat(rig.root / "f").st_mode) & stat.S_ISUID


@pytest.mark.skipif(os.geteuid() != 0, reason="not root")
async def test_a_set_group_directory_gives_its_group(rig: Rig, root: Node) -> None:
    os.chown(rig.root, 0, 4321)
    os.chmod(rig.root, 0o2777)
    os.close(await rig.tree.create(root, b"f", 0o644, os.O_RDWR, Caller(1234, 5678)))
    info = os.stat(rig.root / "f")
    assert (info.st_uid, info.st_gid) == (1234, 4321)


async def test_a_link_of_a_file_whose_names_are_all_gone(rig: Rig, root: Node) -> None:
    (rig.root / "f").write_text("x")
    node = await rig.node("f")
    await rig.tree.unlink(root, b"f", ME)
    await fails(errno.ENOENT, rig.tree.link(node, root, b"again", ME))


async def test_a_large_file_is_freed_in_a_thread(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its last descriptor, after its last name, whoever has taken that: others are served."""
    by_and_by = []
    monkeypatch.setattr(Closer, "close", lambda _, fd: by_and_by.append(fd))
    for name in ("small", "large", "large, and unlinked behind the mount"):
        (rig.root / name).write_bytes(b"x" * (9 << 20 if "large" in name else 1 << 18))
        node = await rig.node(name)
        async with rig.tree.reach(node) as fd:
            if "behind" in name:
                (rig.root / name).unlink()
            else:
                await rig.tree.unlink(rig.volume.nodes.root, name.encode(), ME)
        far = not node.filesystem.local  # there each close may have to say so to a server
        rig.volume.nodes.forget(node)
        assert by_and_by == ([fd] if far or "large" in name else [])
        for closed in by_and_by:
            os.close(closed)
        by_and_by.clear()
