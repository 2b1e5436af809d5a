"""Short paths: how many frames of Python a request enters that is answered from memory."""

import os

import pyfuse3
from frames import frames_of
from page_data import run

PAGE = 4096


async def test_a_page_that_is_in_memory(handlers) -> None:
    """From the handler to lz4."""
    (handlers.rig.root / "f").write_bytes(run(1, 64))
    operations, ctx = handlers.operations, handlers.ctx
    entry = await operations.lookup(pyfuse3.ROOT_INODE, b"f", ctx)
    handle = (await operations.open(entry.st_ino, os.O_RDONLY, ctx)).fh
    await operations.read(handle, 0, 64 * PAGE)
    await handlers.rig.settled(operations._files[handle])
    await operations.read(handle, 8 * PAGE, PAGE)
    frames = frames_of(lambda: operations.read(handle, 9 * PAGE, PAGE))
    assert len(frames) <= 8, frames


async def test_a_name_in_a_local_directory(handlers) -> None:
    (handlers.rig.root / "f").touch()
    operations, ctx = handlers.operations, handlers.ctx
    await operations.lookup(pyfuse3.ROOT_INODE, b"f", ctx)
    frames = frames_of(lambda: operations.lookup(pyfuse3.ROOT_INODE, b"f", ctx))
    assert len(frames) <= 20, frames


async def test_a_small_file_that_is_opened_read_and_closed(handlers) -> None:
    (handlers.rig.root / "f").write_bytes(run(1, 1))
    operations, ctx = handlers.operations, handlers.ctx
    await handlers.rig.warm("f")
    entry = await operations.lookup(pyfuse3.ROOT_INODE, b"f", ctx)

    content = run(1, 1)

    async def open_read_close() -> None:
        handle = (await operations.open(entry.st_ino, os.O_RDONLY, ctx)).fh
        assert await operations.read(handle, 0, PAGE) == content
        await operations.flush(handle)
        await operations.release(handle)

    await open_read_close()
    frames = frames_of(open_read_close)
    assert len(frames) <= 60, frames
