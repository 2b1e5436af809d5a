"""A filesystem that does nothing, on pyfuse3: one file, all of it in memory.

    python null_pyfuse3.py FILE MOUNTPOINT      shows FILE as MOUNTPOINT/data until unmounted

It is the floor under every filesystem in Python: no page is looked up, nothing is compressed
and nothing is copied before pyfuse3 has it. What is written stays in memory; FILE is not changed.
"""

import errno
import stat
import sys
from pathlib import Path

import pyfuse3
import trio
from pyfuse3 import FileHandleT, FileInfo, InodeT, RequestContext

DATA_INO = InodeT(2)
FOREVER = 3600


class NullOperations(pyfuse3.Operations):
    """The handlers that a user of one file needs."""

    def __init__(self, data: bytearray) -> None:
        super().__init__()
        self._data = memoryview(data)

    async def lookup(
        self, parent: InodeT, name: bytes, ctx: RequestContext
    ) -> pyfuse3.EntryAttributes:
        if (parent, name) != (pyfuse3.ROOT_INODE, b"data"):
            raise pyfuse3.FUSEError(errno.ENOENT)
        return await self.getattr(DATA_INO, ctx)

    async def getattr(
        self, inode: InodeT, ctx: RequestContext | None = None
    ) -> pyfuse3.EntryAttributes:
        attributes = pyfuse3.EntryAttributes()
        attributes.st_ino = inode
        attributes.st_mode = stat.S_IFREG | 0o644 if inode == DATA_INO else stat.S_IFDIR | 0o755
        attributes.st_size = len(self._data)
        attributes.attr_timeout = attributes.entry_timeout = FOREVER
        return attributes

    async def open(self, inode: InodeT, flags: int, ctx: RequestContext) -> FileInfo:
        return FileInfo(fh=FileHandleT(inode), keep_cache=True)

    async def read(self, fh: FileHandleT, off: int, size: int) -> memoryview:  # type: ignore[override]
        return self._data[off : off + size]

    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        # The size is fixed, as that of a device: what reaches beyond it is a ValueError.
        self._data[off : off + len(buf)] = buf
        return len(buf)


def main(file: str, mountpoint: str) -> None:
    """Serve until the mount ends."""
    options = {*pyfuse3.default_options, "fsname=null_pyfuse3"}
    pyfuse3.init(NullOperations(bytearray(Path(file).read_bytes())), mountpoint, options)
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
