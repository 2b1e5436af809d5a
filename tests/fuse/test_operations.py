"""The handlers, as far as they can be asked without a kernel."""

import errno
import inspect
import os
import stat
from types import SimpleNamespace

import pyfuse3
import pytest
import trio

from tmemfs.fuse.operations import Operations

ROOT = pyfuse3.ROOT_INODE


@pytest.fixture
def ask(handlers):
    """Asks a handler by name; gives the errno where it refuses."""

    async def ask(name: str, *args: object) -> object:
        try:
            return await getattr(handlers.operations, name)(*args)
        except pyfuse3.FUSEError as error:
            return errno.errorcode[error.errno]

    return ask


def fields(**which: bool) -> SimpleNamespace:
    names = ("size", "uid", "gid", "mode", "atime", "mtime", "ctime")
    return SimpleNamespace(**{f"update_{name}": which.get(name, False) for name in names})


async def test_the_control_directory_is_found_by_name(handlers, ask) -> None:
    entry = await ask("lookup", ROOT, b".tmemfs", handlers.ctx)
    assert stat.S_ISDIR(entry.st_mode)
    assert (await ask("lookup", entry.st_ino, b"budget", handlers.ctx)).st_size == 0
    assert await ask("lookup", entry.st_ino, b"none", handlers.ctx) == "ENOENT"
    assert (entry.attr_timeout, entry.entry_timeout) == (1.0, 2.0)


async def test_the_name_of_the_control_directory_is_taken(handlers, ask) -> None:
    (handlers.rig.root / "f").write_text("")
    number = (await ask("lookup", ROOT, b"f", handlers.ctx)).st_ino
    ctx, name = handlers.ctx, b".tmemfs"
    assert await ask("mkdir", ROOT, name, 0o755, ctx) == "EEXIST"
    assert await ask("mknod", ROOT, name, stat.S_IFREG, 0, ctx) == "EEXIST"
    assert await ask("symlink", ROOT, name, b"x", ctx) == "EEXIST"
    assert await ask("create", ROOT, name, 0o644, os.O_RDWR, ctx) == "EEXIST"
    assert await ask("link", number, ROOT, name, ctx) == "EEXIST"
    assert await ask("unlink", ROOT, name, ctx) == "EBUSY"
    assert await ask("rmdir", ROOT, name, ctx) == "EBUSY"
    assert await ask("rename", ROOT, b"f", ROOT, name, 0, ctx) == "EBUSY"
    assert await ask("rename", ROOT, name, ROOT, b"g", 0, ctx) == "EBUSY"
    assert os.listdir(handlers.rig.root) == ["f"]


async def test_the_control_directory_cannot_be_changed(handlers, ask) -> None:
    ctx = handlers.ctx
    directory = (await ask("lookup", ROOT, b".tmemfs", ctx)).st_ino
    budget = (await ask("lookup", directory, b"budget", ctx)).st_ino
    (handlers.rig.root / "f").write_text("")
    await ask("lookup", ROOT, b"f", ctx)
    assert await ask("mkdir", directory, b"x", 0o755, ctx) == "EPERM"
    assert await ask("create", directory, b"x", 0o644, os.O_RDWR, ctx) == "EPERM"
    assert await ask("unlink", directory, b"budget", ctx) == "EPERM"
    assert await ask("rename", ROOT, b"f", directory, b"g", 0, ctx) == "EPERM"
    assert await ask("link", budget, ROOT, b"g", ctx) == "EPERM"
    assert await ask("setxattr", budget, b"user.x", b"", ctx) == "EPERM"
    assert await ask("removexattr", budget, b"user.x", ctx) == "EPERM"
    assert await ask("getxattr", budget, b"user.x", ctx) == "ENODATA"
    assert await ask("listxattr", budget, ctx) == []
    mode = SimpleNamespace(st_mode=0o777)
    assert await ask("setattr", budget, mode, fields(mode=True), None, ctx) == "EPERM"
    cut = SimpleNamespace(st_size=0)
    assert (await ask("setattr", budget, cut, fields(size=True), None, ctx)).st_ino == budget


async def test_a_number_that_was_forgotten_is_stale(handlers, ask) -> None:
    (handlers.rig.root / "f").write_text("")
    number = (await ask("lookup", ROOT, b"f", handlers.ctx)).st_ino
    await handlers.operations.forget([(number, 1)])
    assert await ask("getattr", number, handlers.ctx) == "ESTALE"
    assert await ask("open", number, os.O_RDONLY, handlers.ctx) == "ESTALE"


@pytest.mark.expects_log("handler forget failed")
async def test_a_mistake_while_forgetting_does_not_end_the_mount(
    handlers, ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pyfuse3 ends the mount on whatever is raised there, and nobody waits for an answer."""
    (handlers.rig.root / "f").write_text("")
    number = (await ask("lookup", ROOT, b"f", handlers.ctx)).st_ino

    def fail(*_: object) -> None:
        raise ValueError("while forgetting")

    with monkeypatch.context() as patch:
        patch.setattr(handlers.rig.volume.inodes, "forget", fail)
        await handlers.operations.forget([(number, 1), (handlers.control.directory.number, 1)])
    assert handlers.failsafe.count == 1


async def test_times_one_of_which_is_left(handlers, ask) -> None:
    (handlers.rig.root / "f").write_text("")
    os.utime(handlers.rig.root / "f", ns=(11, 22))
    number = (await ask("lookup", ROOT, b"f", handlers.ctx)).st_ino
    attr = SimpleNamespace(st_atime_ns=5, st_mtime_ns=6)
    await ask("setattr", number, attr, fields(mtime=True), None, handlers.ctx)
    info = os.stat(handlers.rig.root / "f")
    assert (info.st_atime_ns, info.st_mtime_ns) == (11, 6)


@pytest.mark.skipif(os.geteuid() != 0, reason="not root")
async def test_owner_and_set_id_bits_in_one_request(handlers, ask) -> None:
    (handlers.rig.root / "f").write_text("")
    number = (await ask("lookup", ROOT, b"f", handlers.ctx)).st_ino
    attr = SimpleNamespace(st_uid=1234, st_gid=5678, st_mode=0o4755)
    which = fields(uid=True, gid=True, mode=True)
    entry = await ask("setattr", number, attr, which, None, handlers.ctx)
    assert (entry.st_uid, entry.st_gid, stat.S_IMODE(entry.st_mode)) == (1234, 5678, 0o4755)


def test_every_handler_is_behind_the_failsafe() -> None:
    handlers = [
        name
        for name, method in vars(Operations).items()
        if inspect.iscoroutinefunction(method) and not name.startswith("_") and name != "run"
    ]
    assert len(handlers) > 25
    unguarded = [name for name in handlers if not hasattr(getattr(Operations, name), "__wrapped__")]
    assert unguarded == ["forget"]  # which guards itself, for lack of somebody to tell


async def test_others_are_served_while_thousands_are_forgotten(
    handlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers.rig.volume.executor.turns, "slice_s", 0.0)
    count, served = 1000, 0
    for number in range(count):
        (handlers.rig.root / f"f{number}").touch()
    entries = [
        await handlers.operations.lookup(pyfuse3.ROOT_INODE, b"f%d" % number, handlers.ctx)
        for number in range(count)
    ]

    async def serve() -> None:
        nonlocal served
        while len(handlers.rig.volume.inodes) > 1:
            served += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await handlers.operations.forget([(entry.st_ino, 1) for entry in entries])
    assert served >= count // 2
