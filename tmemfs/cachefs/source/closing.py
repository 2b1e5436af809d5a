"""Descriptors that are closed in a thread, because a close may take long.

The last one of an inode without a name frees all that is in it; one that was written to may have to
be written out, and one on a network says so to the server.
"""

from __future__ import annotations

import contextlib
import os

from tmemfs import supervise, threads


class Closer:
    """Closes descriptors one after the other, in one thread; nobody waits for it."""

    def __init__(self) -> None:
        self._fds: list[int] = []
        self._at_work = False

    def close(self, fd: int) -> None:
        """Close *fd* by and by."""
        self._fds.append(fd)
        if not self._at_work:
            self._at_work = True
            supervise.start(self._work)

    async def _work(self) -> None:
        try:
            while self._fds:
                fds, self._fds = self._fds, []
                try:
                    await threads.run(_close_all, fds)
                finally:
                    # All of them, where no thread could be had.
                    self._fds = fds + self._fds
        finally:
            self._at_work = False


def _close_all(fds: list[int]) -> None:
    while fds:
        with contextlib.suppress(OSError):  # nobody is there to be told
            os.close(fds.pop())
