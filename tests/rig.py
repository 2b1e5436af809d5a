"""A cache volume over a real directory, without FUSE, and ways to stop it where it waits."""

import errno
import os
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trio
from account import check_account

from tmemfs.cachefs import handles, names, volume
from tmemfs.cachefs.inode import Inode
from tmemfs.cachefs.names import Found
from tmemfs.cachefs.shared import OpenFile
from tmemfs.cachefs.source import changes, create, directories, executor, opening, stamps
from tmemfs.cachefs.volume import CacheVolume
from tmemfs.linux.credentials import ourselves
from tmemfs.tmem import Core, Pool

SECONDS = 60
LOCAL, FAR = "tmpfs", "nfs"
"""Kinds of filesystem that a volume may be told to be on."""
ME = ourselves()


class Rig:
    """A volume of the directory `root`, its pool and core, and files of it by path."""

    def __init__(
        self,
        root: Path,
        *,
        page_size: int = 4096,
        budget: int = 16 << 20,
        kind: str = LOCAL,
        descriptors: int = 100,
        **options: Any,
    ) -> None:
        self.root = root
        self.core = Core(budget, capacity=max(budget, 64 << 20))
        self.client = self.core.new_client("test")
        self.pool: Pool = self.client.new_pool("cache", kind="ephemeral", page_size=page_size)
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        self.volume = CacheVolume(fd, self.pool, kind=kind, descriptors=descriptors, **options)
        self.names = self.volume.names

    def close(self) -> None:
        """End it; whatever the test has done, the figures must add up."""
        check_account(self.core)
        self.volume.close()
        self.core.close()

    async def inode(self, path: str) -> Inode:
        """The node of a path below the root, each name of it looked up anew."""
        inode = self.volume.inodes.root
        for name in path.encode().split(b"/"):
            inode = (await self.names.lookup(inode, name)).inode
        return inode

    async def listed(self, parent: Inode, names: list[bytes]) -> list[Found | None]:
        """What a listing of *parent* tells of some names; None for each that is not there."""
        asked = self.volume.executor.asking()
        looks = await self.names.look_many(parent, names)
        return [
            None if isinstance(look, OSError) else self.names.learn(parent, name, look, asked)
            for name, look in zip(names, looks, strict=True)
        ]

    async def open(self, path: str, flags: int = os.O_RDWR) -> OpenFile:
        file, _ = await self.volume.open(await self.inode(path), flags, ME)
        return file

    async def create(self, name: str, content: bytes = b"") -> OpenFile:
        file, _ = await self.volume.files.create(
            self.volume.inodes.root, name.encode(), 0o644, os.O_RDWR | os.O_EXCL, ME
        )
        if content:
            assert await self.volume.write(file, 0, content, ME) == len(content)
        return file

    async def read(self, file: OpenFile, offset: int = 0, size: int = 1 << 20) -> bytes:
        """What a reader gets, and in the pool by then is what it brought."""
        found = self.volume.read(file, offset, size)
        content = bytes(await found if isinstance(found, Coroutine) else found)
        await self.settled(file)
        return content

    async def settled(self, file: OpenFile) -> None:
        """Wait until all that was read of a file is in the pool."""
        with trio.fail_after(SECONDS):
            while file.data.fills:
                await trio.sleep(0)

    async def read_pages(self, file: OpenFile) -> bytes:
        """All of a file, page by page.

        A miss is read together with what lies between it and the next one: a wrong page among
        others may never be looked at.
        """
        content, size = b"", self.pool.page_size
        while page := await self.read(file, len(content), size):
            content += page
        assert await self.read(file) == content
        return content

    async def read_anew(self, path: str) -> bytes:
        """All of a file, opened for it."""
        file = await self.open(path, os.O_RDONLY)
        try:
            return await self.read(file)
        finally:
            await self.volume.release(file)

    async def keeps(self, path: str) -> bool:
        """Whether an open now would let the kernel keep its pages."""
        file, keep = await self.volume.open(await self.inode(path), os.O_RDONLY, ME)
        await self.volume.release(file)
        return keep

    async def warm(self, path: str) -> bytes:
        """Read a file that was left alone, so that its pages are there and trusted."""
        left_alone(self.root / path)
        content = await self.read_anew(path)
        assert await self.keeps(path)
        return content

    def pages(self) -> int:
        return int(self.pool.statistics()["pages"])


def left_alone(path: Path) -> None:
    """Return as soon as the file was left alone for so long that its times can be trusted."""
    info = os.stat(path)
    while time.time_ns() - max(info.st_mtime_ns, info.st_ctime_ns) <= 2 * stamps.TICK:
        time.sleep(0.002)


def forbid_handles(monkeypatch: Any) -> None:
    """Let nobody open anything by file handle, as if without the capability for it."""

    def refuse(*_: object) -> int:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr("tmemfs.cachefs.source.routes.open_file_handle", refuse)


class Gate:
    """A function of the volume that waits in its thread: before it does its work, or after it."""

    def __init__(self, function: Callable[..., Any], *, before: bool = False) -> None:
        self.reached = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        self._function = function
        self._before = before
        self._opened = threading.Event()

    def __call__(self, *args: Any) -> Any:
        if self._opened.is_set():
            return self._function(*args)
        if self._before:
            self._wait()
            return self._function(*args)
        try:
            return self._function(*args)
        finally:
            self._wait()

    def open(self) -> None:
        """Let it go on, and let everybody pass from now on."""
        self._opened.set()

    def _wait(self) -> None:
        trio.from_thread.run_sync(self.reached.set, trio_token=self._token)
        assert self._opened.wait(SECONDS)


@contextmanager
def gate(monkeypatch: Any, name: str, *, before: bool = False) -> Iterator[Gate]:
    """A gate in the function `name` of the modules of cache volumes."""
    module = next(
        m
        for m in (executor, handles, names, volume, directories, changes, create, opening)
        if hasattr(m, name)
    )
    made = Gate(getattr(module, name), before=before)
    with monkeypatch.context() as patch:
        patch.setattr(module, name, made)
        try:
            yield made
        finally:
            made.open()
