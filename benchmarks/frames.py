"""Python frames that a request enters which is answered from memory: what it costs but for bytes.

A mount without FUSE is asked as the kernel would ask it, so that the count is the same everywhere.
"""

import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import trio

from tmemfs.cachefs.source.stamps import settled
from tmemfs.config import parse_mount
from tmemfs.fuse import pyfuse3
from tmemfs.fuse.attributes import Timeouts
from tmemfs.fuse.control import Control
from tmemfs.fuse.operations import Operations
from tmemfs.mount import build

HIT, LOOKUP, FILE = "a 4 KiB hit", "a local lookup", "a small file: open, read, close"
MOST = {HIT: 8, LOOKUP: 20, FILE: 60}
"""how many frames each may enter"""
_PAGE = 4096


def frames_of(request: Callable[[], Coroutine[Any, Any, Any]]) -> list[str]:
    """The functions that are entered, in order, while the coroutine of *request* runs to its end.

    It must not have to wait: a frame that is resumed would count once more.
    """
    entered: list[str] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            entered.append(frame.f_code.co_qualname)

    coroutine = request()
    sys.setprofile(note)
    try:
        coroutine.send(None)
    except StopIteration:
        pass
    else:
        raise AssertionError("it waits")
    finally:
        sys.setprofile(None)
    return entered


async def short_paths(source: Path) -> dict[str, list[str]]:
    """The frames of each kind of request, over the empty directory *source* of a local disk."""
    (source / "f").write_bytes(os.urandom(64 * _PAGE))
    (source / "small").write_bytes(b"content")
    # Pages of a file that has just changed are not believed: see `settled`.
    while not settled(os.stat(source / "small")):
        await trio.sleep(0.001)
    config = parse_mount(str(source), "/", ["budget=16M", "page_size=4K"], as_root=False)
    mount = build(config, os.open(source, os.O_RDONLY | os.O_DIRECTORY), 100)
    try:
        operations = Operations(mount, Control(mount), Timeouts(1.0, 1.0))
        ids = SimpleNamespace(uid=os.geteuid(), gid=os.getegid(), pid=os.getpid(), umask=0)
        root = pyfuse3.ROOT_INODE

        async def opened(name: bytes) -> int:
            entry = await operations.lookup(root, name, ids)
            answer = await operations.open(entry.st_ino, os.O_RDONLY, ids)
            return int(answer.fh)

        async def small_file() -> None:
            answer = await operations.open(entry.st_ino, os.O_RDONLY, ids)
            assert await operations.read(answer.fh, 0, _PAGE) == b"content"
            await operations.flush(answer.fh)
            await operations.release(answer.fh)

        handle = await opened(b"f")
        await operations.read(handle, 0, 64 * _PAGE)
        with trio.fail_after(60):
            while operations._files[handle].data.fills:
                await trio.sleep(0)
        await operations.read(handle, 40 * _PAGE, _PAGE)
        entry = await operations.lookup(root, b"small", ids)
        await small_file()
        await small_file()
        return {
            HIT: frames_of(lambda: operations.read(handle, 20 * _PAGE, _PAGE)),
            LOOKUP: frames_of(lambda: operations.lookup(root, b"small", ids)),
            FILE: frames_of(small_file),
        }
    finally:
        mount.close()
