"""Names and attributes: each operation does, and fails, as its namesake in the VFS."""

import errno
import os
import stat
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from rig import FAR, LOCAL, ME, Rig

from tmemfs.cachefs.inode import Inode
from tmemfs.cachefs.source.closing import Closer
from tmemfs.cachefs.source.create import Caller


@pytest.fixture(
    params=[(LOCAL, False), (LOCAL, True), (FAR, True)],
    ids=["in line", "changes in threads", "in threads"],
)
def rig(request: pytest.FixtureRequest, new_rig: Callable[..., Rig]) -> Rig:
    return new_rig(kind=request.param[0], serves_swap=request.param[1])


@pytest.fixture
def root(rig: Rig) -> Inode:
    return rig.volume.inodes.root


async def fails(code: int, call: Coroutine[Any, Any, Any]) -> None:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - compared below
        await call
    assert caught.value.errno == code, caught.value


async def test_lookup(rig: Rig, root: Inode) -> None:
    (rig.root / "f").write_text("x")
    inode, info, _ = await rig.names.lookup(root, b"f")
    assert info.st_ino == os.stat(rig.root / "f").st_ino
    assert not inode.is_directory
    assert (await rig.names.lookup(root, b"f"))[0] is inode
    await fails(errno.ENOENT, rig.names.lookup(root, b"none"))
    await fails(errno.ENAMETOOLONG, rig.names.lookup(root, b"n" * 256))
    await fails(errno.ENOTDIR, rig.names.lookup(inode, b"below"))


async def test_listdir(rig: Rig, root: Inode) -> None:
    names = {b"a", b"\xff\xfe", b"new\nline", b".hidden"}
    for name in names:
        os.close(os.open(os.path.join(os.fsencode(rig.root), name), os.O_CREAT))
    assert (await rig.names.listdir(root)).startswith(b".\0..\0")
    assert set((await rig.names.listdir(root)).split(b"\0")) - {b".", b"..", b""} == names
    await fails(errno.ENOTDIR, rig.names.listdir(await rig.inode("a")))


async def test_mkdir_and_rmdir(rig: Rig, root: Inode) -> None:
    inode, info, _ = await rig.volume.modify.mkdir(root, b"d", stat.S_IFDIR | 0o750, ME)
    assert inode.is_directory
    assert stat.S_IMODE(info.st_mode) == 0o750
    await fails(errno.EEXIST, rig.volume.modify.mkdir(root, b"d", 0o755, ME))
    await rig.volume.modify.mkdir(inode, b"below", 0o700, ME)
    await fails(errno.ENOTEMPTY, rig.volume.modify.rmdir(root, b"d", ME))
    await fails(errno.EISDIR, rig.volume.modify.unlink(root, b"d", ME))
    await rig.volume.modify.rmdir(inode, b"below", ME)
    await rig.volume.modify.rmdir(root, b"d", ME)
    await fails(errno.ENOENT, rig.volume.modify.rmdir(root, b"d", ME))


async def test_symlink_and_readlink(rig: Rig, root: Inode) -> None:
    inode, info, _ = await rig.volume.modify.symlink(root, b"l", b"some/\xff", ME)
    assert stat.S_ISLNK(info.st_mode)
    assert await rig.names.readlink(inode) == b"some/\xff"
    await fails(errno.EEXIST, rig.volume.modify.symlink(root, b"l", b"x", ME))
    (rig.root / "f").write_text("")
    # What readlink(2) says of an empty path whose descriptor is no link.
    await fails(errno.ENOENT, rig.names.readlink(await rig.inode("f")))


async def test_mknod_of_a_fifo(rig: Rig, root: Inode) -> None:
    _, info, _ = await rig.volume.modify.mknod(root, b"p", stat.S_IFIFO | 0o640, 0, ME)
    assert stat.S_ISFIFO(info.st_mode)
    await fails(errno.EEXIST, rig.volume.modify.mknod(root, b"p", stat.S_IFIFO | 0o640, 0, ME))


async def test_link(rig: Rig, root: Inode) -> None:
    (rig.root / "f").write_text("x")
    os.mkdir(rig.root / "d")
    inode = await rig.inode("f")
    linked, info, _ = await rig.volume.modify.link(inode, await rig.inode("d"), b"g", ME)
    assert linked is inode
    assert info.st_nlink == 2
    await fails(errno.EEXIST, rig.volume.modify.link(inode, root, b"f", ME))
    await fails(errno.EPERM, rig.volume.modify.link(await rig.inode("d"), root, b"e", ME))


async def test_unlink(rig: Rig, root: Inode) -> None:
    (rig.root / "f").write_text("x")
    await rig.volume.modify.unlink(root, b"f", ME)
    assert os.listdir(rig.root) == []
    await fails(errno.ENOENT, rig.volume.modify.unlink(root, b"f", ME))
    os.mkdir(rig.root / "d")
    await rig.inode("d")
    await fails(errno.EISDIR, rig.volume.modify.unlink(root, b"d", ME))


async def test_rename(rig: Rig, root: Inode) -> None:
    for name in ("a", "b"):
        (rig.root / name).write_text(name)
    os.makedirs(rig.root / "d" / "full")
    await fails(errno.EEXIST, rig.volume.modify.rename(root, b"a", root, b"b", 1, ME))
    await rig.volume.modify.rename(root, b"a", root, b"b", 2, ME)
    assert (rig.root / "a").read_text() == "b"
    await rig.volume.modify.rename(root, b"a", root, b"b", 0, ME)
    assert sorted(os.listdir(rig.root)) == ["b", "d"]
    directory = await rig.inode("d")
    await fails(errno.ENOENT, rig.volume.modify.rename(root, b"none", root, b"x", 0, ME))
    await fails(errno.EISDIR, rig.volume.modify.rename(root, b"b", root, b"d", 0, ME))
    await fails(errno.ENOTDIR, rig.volume.modify.rename(root, b"d", root, b"b", 0, ME))
    await fails(errno.EINVAL, rig.volume.modify.rename(root, b"d", directory, b"e", 0, ME))
    await fails(errno.EINVAL, rig.volume.modify.rename(root, b"b", root, b"c", 1 << 10, ME))
    os.mkdir(rig.root / "e")
    await fails(errno.ENOTEMPTY, rig.volume.modify.rename(root, b"e", root, b"d", 0, ME))


async def test_chmod(rig: Rig) -> None:
    (rig.root / "f").write_text("x")
    inode = await rig.inode("f")
    await rig.volume.modify.chmod(inode, stat.S_IFREG | 0o4711, ME)
    assert stat.S_IMODE(os.stat(rig.root / "f").st_mode) == 0o4711


async def test_utimens_has_nanoseconds(rig: Rig) -> None:
    (rig.root / "f").write_text("x")
    os.symlink("f", rig.root / "l")
    times = (123_456_789_000_000_001, 987_654_321_000_000_007)
    for name in ("f", "l"):
        await rig.volume.modify.utimens(await rig.inode(name), times, ME)
        info = os.lstat(rig.root / name)
        assert (info.st_atime_ns, info.st_mtime_ns) == times


async def test_xattrs(rig: Rig) -> None:
    (rig.root / "f").write_text("x")
    inode = await rig.inode("f")
    await rig.volume.modify.setxattr(inode, b"user.x", b"\0\xff", ME)
    assert await rig.names.getxattr(inode, b"user.x") == b"\0\xff"
    assert await rig.names.listxattr(inode) == [b"user.x"]
    await rig.volume.modify.removexattr(inode, b"user.x", ME)
    await fails(errno.ENODATA, rig.names.getxattr(inode, b"user.x"))
    await fails(errno.ENODATA, rig.volume.modify.removexattr(inode, b"user.x", ME))
    await fails(errno.EOPNOTSUPP, rig.volume.modify.setxattr(inode, b"nonsense", b"x", ME))


async def test_statfs(rig: Rig) -> None:
    assert (await rig.names.statfs(rig.volume.inodes.root)).f_blocks == os.statvfs(
        rig.root
    ).f_blocks


async def test_create_never_opens_what_is_there(rig: Rig, root: Inode) -> None:
    """Whether the caller may open it, only the kernel can say: it has to look again."""
    (rig.root / "f").write_text("of somebody else")
    await fails(errno.ESTALE, rig.volume.modify.create(root, b"f", 0o644, os.O_RDWR, ME))
    await fails(
        errno.EEXIST, rig.volume.modify.create(root, b"f", 0o644, os.O_RDWR | os.O_EXCL, ME)
    )
    os.symlink("f", rig.root / "l")
    await fails(errno.ESTALE, rig.volume.modify.create(root, b"l", 0o644, os.O_RDWR, ME))
    assert (rig.root / "f").read_text() == "of somebody else"


@pytest.mark.skipif(os.geteuid() != 0, reason="not root")
async def test_what_is_made_belongs_to_the_caller(rig: Rig, root: Inode) -> None:
    rig.root.chmod(0o777)
    caller = Caller(1234, 5678)
    os.close(await rig.volume.modify.create(root, b"f", 0o4755, os.O_RDWR, caller))
    await rig.volume.modify.mkdir(root, b"d", 0o2755, caller)
    await rig.volume.modify.symlink(root, b"l", b"x", caller)
    await rig.volume.modify.mknod(root, b"p", stat.S_IFIFO | 0o600, 0, caller)
    for name in ("f", "d", "l", "p"):
        info = os.lstat(rig.root / name)
        assert (info.st_uid, info.st_gid) == (1234, 5678)
    assert stat.S_IMODE(os.stat(rig.root / "f").st_mode) & stat.S_ISUID


@pytest.mark.skipif(os.geteuid() != 0, reason="not root")
async def test_a_set_group_directory_gives_its_group(rig: Rig, root: Inode) -> None:
    os.chown(rig.root, 0, 4321)
    os.chmod(rig.root, 0o2777)
    os.close(await rig.volume.modify.create(root, b"f", 0o644, os.O_RDWR, Caller(1234, 5678)))
    info = os.stat(rig.root / "f")
    assert (info.st_uid, info.st_gid) == (1234, 4321)


async def test_a_link_of_a_file_whose_names_are_all_gone(rig: Rig, root: Inode) -> None:
    (rig.root / "f").write_text("x")
    inode = await rig.inode("f")
    await rig.volume.modify.unlink(root, b"f", ME)
    await fails(errno.ENOENT, rig.volume.modify.link(inode, root, b"again", ME))


async def test_a_large_file_is_freed_in_a_thread(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its last descriptor, after its last name, whoever has taken that: others are served."""
    by_and_by = []
    monkeypatch.setattr(Closer, "close", lambda _, fd: by_and_by.append(fd))
    for name in ("small", "large", "large, and unlinked behind the mount"):
        (rig.root / name).write_bytes(b"x" * (9 << 20 if "large" in name else 1 << 18))
        inode = await rig.inode(name)
        async with inode.open() as fd:
            if "behind" in name:
                (rig.root / name).unlink()
            else:
                await rig.volume.modify.unlink(rig.volume.inodes.root, name.encode(), ME)
        far = not inode.filesystem.local  # there each close may have to say so to a server
        rig.volume.inodes.abandon(inode)
        assert by_and_by == ([fd] if far or "large" in name else [])
        for closed in by_and_by:
            os.close(closed)
        by_and_by.clear()
