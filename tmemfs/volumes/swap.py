"""A swap volume: a file of fixed size whose pages live in a persistent pool.

What was never written reads as zeros. A page that does not fit into the budget is refused with
ENOSPC before anything is given up for it: what was written before is still there.
"""

from __future__ import annotations

import errno
import os

from tmemfs.errors import CorruptPage
from tmemfs.tmem import Pool

PAGE_SIZE = 4096

# A volume is one object; its pages are told apart by index alone.
_OBJECT = 0


class SwapVolume:
    """A file of *size* bytes (a multiple of 4096) called *name*, kept in *pool*.

    Nothing here waits, and there are no awaits: a request is served in one go.
    """

    def __init__(self, name: str, size: int, pool: Pool) -> None:
        self.name = name
        self.size = size
        self._pool = pool
        self._zeros = bytes(pool.page_size)

    def read(self, offset: int, size: int) -> bytes | memoryview:
        """Return *size* bytes at *offset*, fewer at the end of the volume. Raises EIO."""
        end = min(offset + size, self.size)
        if offset >= end:
            return b""
        page_size = self._pool.page_size
        first = offset // page_size
        run = self._pages(first, (end - 1) // page_size + 1 - first)
        start = offset - first * page_size
        return memoryview(run)[start : start + end - offset]

    def write(self, offset: int, buf: bytes) -> int:
        """Write *buf* at *offset*; return its length.

        Raises ENOSPC when the budget has no room or *buf* reaches beyond the end; nothing has
        changed then.
        """
        end = offset + len(buf)
        if end > self.size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if not buf:
            return 0
        page_size = self._pool.page_size
        first = offset // page_size
        count = (end - 1) // page_size + 1 - first
        head, tail = offset % page_size, -end % page_size
        data = buf
        if head:
            data = bytes(self._pages(first, 1)[:head]) + data
        if tail:
            data += bytes(self._pages(first + count - 1, 1)[page_size - tail :])
        # Asked first, because a refused put would leave nothing where the older page was.
        if not self._pool.has_room(count):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self._pool.put_many(_OBJECT, first, data) != count:
            raise OSError(errno.EIO, "a page was refused although there was room")
        return len(buf)

    def _pages(self, first: int, count: int) -> bytes:
        try:
            pages = self._pool.get_many(_OBJECT, first, count)
        except CorruptPage as error:
            raise OSError(errno.EIO, str(error)) from error
        zeros = self._zeros
        return b"".join([page if page is not None else zeros for page in pages])
