"""A cache volume: a backing directory whose file pages are kept in an ephemeral pool.

Reads come out of the pool; what is missing is read from the backing file and put there. Writes
go to the backing file before they are acknowledged, so that nothing is ever held here alone.

What keeps stale bytes out is in `tmemfs.cachefs.pages`.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

import trio

from tmemfs.cachefs.attrcache import AttrCache
from tmemfs.cachefs.fetch import Fetcher
from tmemfs.cachefs.granting import Granter
from tmemfs.cachefs.handles import OpenFiles
from tmemfs.cachefs.inode import Inode
from tmemfs.cachefs.inodes import InodeTable
from tmemfs.cachefs.modify import Modifier
from tmemfs.cachefs.names import Names
from tmemfs.cachefs.pages import Ours
from tmemfs.cachefs.prefetch import Prefetcher
from tmemfs.cachefs.reading import Reader
from tmemfs.cachefs.shared import OpenFile
from tmemfs.cachefs.source import opening
from tmemfs.cachefs.source.executor import Change, Executor
from tmemfs.cachefs.source.routes import Stat, inode_path
from tmemfs.cachefs.source.stamps import as_of, stamp
from tmemfs.cachefs.trace import Trace
from tmemfs.config import CacheMode
from tmemfs.linux.credentials import Caller
from tmemfs.linux.syscalls import FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE, fallocate
from tmemfs.native.lane import Lane, Written
from tmemfs.tmem import INDEX_LIMIT, Pool

# For so long a descriptor that nobody uses stays open on what is mounted below the source.
_IDLE_S = 1.0


class CacheVolume:
    """The directory *root_fd*, its file pages kept in *pool*, an ephemeral one.

    It is on a filesystem of the kind *kind* (`filesystems.kind_of`); *descriptors* is how many may
    be open for inodes, *open_files* for open files. If the same mount *serves_swap*, that must
    not wait for a change to a name either. Names and attributes are the business of
    `tree`; what concerns the bytes of files is here. All errors are OSErrors.

    In the *mode* ``open`` pages are compared with the backing file at every open, and its end is
    looked for no more often than each *believe* seconds; ``none`` compares at every read, and
    ``always`` never. Where the filesystem is not local, attributes are believed for as long, and
    names for *entry_ttl*. With *writeback* the kernel writes when it likes, and knows where a
    file ends. With *noatime* access times stay. Up to *readahead* bytes are read ahead of who reads
    in order. Reads are noted in *trace*.
    """

    def __init__(
        self,
        root_fd: int,
        pool: Pool,
        *,
        kind: str,
        descriptors: int,
        open_files: int = 1 << 20,
        serves_swap: bool = True,
        mode: CacheMode = "open",
        attr_ttl: float = 0,
        entry_ttl: float = 0,
        writeback: bool = False,
        readahead: int = 0,
        noatime: bool = False,
        trace: Trace | None = None,
    ) -> None:
        self.executor = Executor(serves_swap=serves_swap, noatime=noatime)
        self.inodes = InodeTable(root_fd, descriptors, kind, self.executor)
        self.names = Names(self.inodes, self.executor, AttrCache(attr_ttl, entry_ttl))
        self.modify = Modifier(self.names, self.executor, self._attributes_changed)
        self.files = OpenFiles(
            self.names,
            self.modify,
            self.executor,
            pool,
            checks=mode != "always",
            writeback=writeback,
            descriptors=open_files,
        )
        self.release = self.files.release
        self.mode = mode
        self.writeback = writeback
        self.fetcher = Fetcher(self.executor, self.files, pool.page_size)
        self.prefetcher = Prefetcher(self.inodes, self.files, self.executor, pool)
        self._pool = pool
        self.readahead = readahead
        self._page_size = pool.page_size
        self._trace = trace
        # A page of swap must not wait for a disk, and with writeback the kernel decides alone.
        self.granter = Granter(pool, self.fetcher, may_write=not (serves_swap or writeback))
        self.reader = Reader(
            self.names,
            self.files,
            self.fetcher,
            self.executor,
            self.granter,
            pool,
            mode=mode,
            believe=attr_ttl,
            trace=trace,
        )
        self.read = self.reader.read

    def use(self, lane: Lane) -> None:
        """Let *lane* answer from now on what need not be seen here."""
        if self.mode != "none" and self._trace is None:
            self.granter.lane = lane

    def close(self) -> None:
        """Close every descriptor; the pool stays as it is."""
        self.inodes.close()
        if self._trace is not None:
            self._trace.close()

    async def run(self) -> None:
        """Keep nobody from unmounting what is mounted below the source."""
        while True:
            await trio.sleep(_IDLE_S)
            self.inodes.descriptors.leave_mounts()

    def statistics(self) -> dict[str, int]:
        """Return the volume's counters, and how much it has open, plain numbers by name."""
        return {
            **self.executor.counters.as_dict(),
            "open_files": self.files.count,
            "known_inodes": len(self.inodes),
            "open_descriptors": self.inodes.descriptors.count,
            "threads_waiting": self.executor.waiting,
        }

    # -- opening -----------------------------------------------------------------------------

    async def open(self, inode: Inode, flags: int, caller: Caller) -> tuple[OpenFile, bool]:
        """Open a file as *caller*; return it, and whether the kernel may keep its pages of it."""
        if flags & (os.O_ACCMODE | os.O_TRUNC) == os.O_RDONLY and not inode.filesystem.local:
            await self.prefetcher.opened(inode)
        file, keep = await self.files.open(inode, flags, caller)
        if flags & os.O_TRUNC:
            try:
                await self.truncate(file, 0, caller)
                inode.kernel_size = 0
            except BaseException:
                await self.release(file)
                raise
        return file, keep

    # -- bytes -------------------------------------------------------------------------------

    async def write(self, file: OpenFile, offset: int, buf: bytes, caller: Caller) -> int:
        """Write *buf* at *offset* of the backing file as *caller*; return how much was written."""
        data, page_size = file.data, self._page_size
        first = offset // page_size
        count = (offset + len(buf) - 1) // page_size + 1 - first
        # The kernel turns O_APPEND into an offset, the end of the file as far as it knows; behind
        # the mount the file may have grown. Elsewhere than there, it writes back a mapping.
        at_end = file.flags & os.O_APPEND and offset == file.inode.kernel_size
        flags = os.RWF_APPEND if at_end and not self.writeback else 0
        self._look_before(file)
        before, after = data.edges(offset, offset + len(buf))
        with self._changing(file, first, count) as ours:
            size = max(data.size, offset + len(buf))
            how, on = (caller, file.fd, buf, offset, flags), file.inode.filesystem
            if self.executor.may_write_now(on, len(buf)):
                ours.made = self.executor.write_now(on, *how)
            else:
                ours.made = await self.executor.write(data.threads, *how)
        written = ours.made.written
        file.inode.kernel_size = max(file.inode.kernel_size, offset + written)
        if ours.alone and data.size == size:
            # Nothing else has run since the write, so that these are the newest bytes.
            whole = written == len(buf)
            data.put_written(offset, buf[:written], before, after if whole else None)
        elif ours.alone and ours.made.after is not None:
            # Somebody else has cut or extended the file, and who knows what more.
            data.changed_behind(ours.made.after)
        return written

    def settle(self) -> None:
        """Hear of all that the lane has written, before the next request is served."""
        for file, written in self.granter.heard():
            self._was_written(file, written)

    def _was_written(self, file: OpenFile, written: Written) -> None:
        """Do for what the lane has written of a file what `write` does beside it."""
        data, start, buf = file.data, written.start, written.data
        first = start // self._page_size
        count = (written.end - 1) // self._page_size + 1 - first
        info = os.fstat(file.fd)
        edges = data.edges(start, start + len(buf)) if buf else None
        with self._changing(file, first, count, at_rest=False) as ours:
            before = as_of(info, *written.before) if written.alone else None
            ours.made = Change(before, as_of(info, *written.after), written.size)
        if edges is not None and ours.alone:
            data.put_written(start, buf, *edges)
        self.executor.count_writes(written.writes, written.size)
        # A write that failed has reached no end.
        reached = min(written.end, info.st_size)
        file.inode.kernel_size = max(file.inode.kernel_size, reached)

    async def truncate(self, file: OpenFile, size: int, caller: Caller) -> None:
        """Cut or extend a file to *size* bytes, as *caller*."""
        self._look_before(file)
        first = min(size, file.data.size) // self._page_size
        with self._changing(file, first, INDEX_LIMIT - first) as ours:
            ours.made = await self.executor.change(
                file.data.threads, caller, os.ftruncate, file.fd, size
            )

    async def fallocate(
        self, file: OpenFile, mode: int, offset: int, length: int, caller: Caller
    ) -> None:
        """Allocate, punch out or zero a range of a file, as *caller*; see fallocate(2).

        Raises EOPNOTSUPP for modes that move what is behind the range.
        """
        if mode & ~(FALLOC_KEEP_SIZE | FALLOC_PUNCH_HOLE | FALLOC_ZERO_RANGE):
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        end = offset + length
        first = offset // self._page_size
        count = (end - 1) // self._page_size + 1 - first
        self._look_before(file)
        with self._changing(file, first, count) as ours:
            ours.made = await self.executor.change(
                file.data.threads, caller, fallocate, file.fd, mode, offset, length
            )
        if not mode & FALLOC_KEEP_SIZE:
            file.inode.kernel_size = max(file.inode.kernel_size, end)

    async def lseek(self, file: OpenFile, offset: int, whence: int) -> int:
        """Return where data, or a hole, begins from *offset* on: ``SEEK_DATA``, ``SEEK_HOLE``.

        As long as somebody may write the file, all of it is data: what was written to a mapping of
        it, or is written back later, is known to the kernel alone. Raises ENXIO behind the end.
        """
        if file.data.writers:
            return seek_in_data(file.data.size, offset, whence)
        fd = await self.files.reader(file)
        return await self.executor.call(file.inode.filesystem, os.lseek, fd, offset, whence)

    async def fsync(self, file: OpenFile, datasync: bool) -> None:
        """Let what was written reach the backing file's disk."""
        sync = os.fdatasync if datasync else os.fsync
        fd = file.fd if file.fd >= 0 else await self.files.reader(file)
        with self._sending(file):
            await self.executor.wait(file.data.threads, sync, fd)

    async def sync_directory(self, inode: Inode) -> None:
        """Let a directory's names reach the backing disk."""
        async with inode.open() as fd:
            await self.executor.wait(
                self.executor.limiter(), opening.sync_directory, inode_path(fd)
            )

    async def flush(self, file: OpenFile) -> None:
        """One of the file's descriptors was closed: the last chance to report a late error."""
        if file.wrote and not file.inode.filesystem.local:
            # A network filesystem tells of failed writes when a descriptor is closed.
            with self._sending(file):
                await self.executor.wait(file.data.threads, lambda: os.close(os.dup(file.fd)))

    # -- in use ------------------------------------------------------------------------------

    def drop(self, inode: Inode) -> int:
        """Forget the pages of a file, open or not; return how many there were."""
        self.names.attrcache.clear()
        # Nothing is lost, and none of it was wrong: who reads on reads from the backing file.
        if inode.data is not None:
            inode.data.generation += 1  # nor does anything come that is on its way
        return self._pool.flush_object(inode.object_id)

    def drop_all(self) -> Iterator[int]:
        """Forget the pages of all files, one after the other; yield how many each had."""
        self.names.attrcache.clear()
        for object_id in [owner.id for owner in self._pool.objects]:
            yield self._pool.flush_object(object_id)

    @property
    def readahead(self) -> int:
        """The most bytes that are read ahead of who reads in order; 0 for nothing."""
        return self.fetcher.readahead

    @readahead.setter
    def readahead(self, size: int) -> None:
        # More would push out what it has just brought where the budget is small.
        self.fetcher.readahead = min(size, 4 * self._pool.arena.segment_size)
        self.prefetcher.enabled = size > 0

    # -- inside ------------------------------------------------------------------------------

    def _look_before(self, file: OpenFile) -> None:
        """Before a change of ours: somebody else's must not hide behind it."""
        # Over a network the thread that makes the change looks.
        if file.inode.filesystem.local:
            file.data.notice(os.fstat(file.fd))

    @contextlib.contextmanager
    def _changing(
        self, file: OpenFile, first: int, count: int, *, at_rest: bool = True
    ) -> Iterator[Ours]:
        """Around a change of ours to *count* pages of a file (see `FileData.change`).

        Unless it is *at rest* afterwards: then it may have been changed again since.
        """
        file.wrote = True
        try:
            fd = file.fd if file.inode.filesystem.local and at_rest else -1
            with file.data.change(first, count, fd) as ours:
                yield ours
        finally:
            self.executor.note_change(file.inode)

    @contextlib.contextmanager
    def _sending(self, file: OpenFile) -> Iterator[None]:
        """Around what lets writes arrive where the file is, which may move its times there."""
        try:
            yield
        finally:
            if file.wrote:
                self.executor.note_change(file.inode)

    def _attributes_changed(self, inode: Inode, before: Stat | None, after: Stat | None) -> None:
        """An operation of ours on a name changed the file's times: no reason to lose its pages."""
        if before is None or after is None:
            self._may_be_another(inode, gone=after is None)
            return
        # Unless it is the modification time: behind that, somebody else's change may hide.
        ours = (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size)
        if inode.data is not None:
            inode.data.unlinked = not after.st_nlink
            if before.st_mode != after.st_mode:
                inode.data.revoke()  # whether writes are granted depends on it
            if ours:
                inode.data.restamp(before, after)
            else:
                inode.data.retimed(before, after)
        elif not after.st_nlink:
            self._pool.flush_object(inode.object_id)
        elif ours and self._pool.stamp(inode.object_id) == stamp(before):
            self._pool.set_stamp(inode.object_id, stamp(after))

    def _may_be_another(self, inode: Inode, *, gone: bool) -> None:
        """A file could not be looked at beside a change of ours: who knows what it has by now."""
        if inode.data is not None:
            inode.data.unlinked = gone
            inode.data.doubt(None)
        else:
            self._pool.flush_object(inode.object_id)


def seek_in_data(size: int, offset: int, whence: int) -> int:
    """As lseek(2) with ``SEEK_DATA`` or ``SEEK_HOLE`` where there is no hole but the end."""
    if not 0 <= offset < size:
        raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
    return offset if whence == os.SEEK_DATA else size
