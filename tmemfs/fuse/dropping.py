"""Forgetting what is cached of files, here and in the kernel."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence

import pyfuse3
import trio

from tmemfs.cachefs.inode import Inode
from tmemfs.cachefs.volume import CacheVolume

# Files of which the kernel is told in one go.
_SLICE = 256


class Dropper:
    """Drops what the kernel and the pool of *volume* have of its files.

    Nothing can be lost: the pool holds nothing that is not in a backing file, and what the kernel
    has yet to write is written first.
    """

    def __init__(self, volume: CacheVolume) -> None:
        self._inodes = volume.inodes
        self._volume = volume

    async def drop(self, numbers: Iterable[int]) -> None:
        """Forget the files that the kernel calls by *numbers*; it does not matter if none is."""
        known = [(number, self._find(number)) for number in numbers]
        files = [(number, inode) for number, inode in known if inode is not None]
        for start in range(0, len(files), _SLICE):
            part = files[start : start + _SLICE]
            # The kernel first, whose dirty pages come to us now and would be in the pool again.
            # In a thread, since it waits for reads and writes that only this one can serve.
            await trio.to_thread.run_sync(
                _tell_kernel, [number for number, _ in part], abandon_on_cancel=True
            )
            for _, inode in part:
                self._volume.drop(inode)
                await trio.lowlevel.checkpoint()

    async def drop_all(self) -> None:
        """Forget every file."""
        await self.drop(self._inodes.numbers())
        for _ in self._volume.drop_all():
            await trio.lowlevel.checkpoint()

    def _find(self, number: int) -> Inode | None:
        try:
            return self._inodes.inode(number)
        except OSError:
            return None


def _tell_kernel(numbers: Sequence[int]) -> None:
    for number in numbers:
        # It may have forgotten the inode by itself.
        with contextlib.suppress(FileNotFoundError):
            pyfuse3.invalidate_inode(pyfuse3.InodeT(number))
