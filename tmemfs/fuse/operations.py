"""The handlers: what each request of the kernel means, in a few lines over the volumes.

A number below `OWN_NUMBERS` is an inode of the backing directory, one in `Control` is below
``.tmemfs``. Every handler goes through `failsafe.handler`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Sequence
from typing import Any

import pyfuse3

from tmemfs.cachefs.inode import Inode
from tmemfs.cachefs.inodes import OWN_NUMBERS
from tmemfs.cachefs.shared import OpenFile
from tmemfs.cachefs.volume import seek_in_data
from tmemfs.fuse import control, session
from tmemfs.fuse.attributes import Timeouts, statvfs
from tmemfs.fuse.control import Control
from tmemfs.fuse.controlfiles import OpenControl
from tmemfs.fuse.directory import Directory, Lister
from tmemfs.fuse.dropping import Dropper
from tmemfs.fuse.entries import FOR_EVER, Entries
from tmemfs.fuse.failsafe import handler
from tmemfs.fuse.lastknown import LastKnown
from tmemfs.fuse.requests import (
    CAPABILITY,
    are_flushed_times,
    caller_of,
    changer_of,
    writer_of,
)
from tmemfs.fuse.setattr import set_attributes
from tmemfs.fuse.shortage import Shortage
from tmemfs.linux.credentials import caller, ourselves
from tmemfs.mount import Mount

_ACL = b"system.posix_acl_"


class Operations(pyfuse3.Operations):
    """A mount as pyfuse3 sees it: its cache volume, and the control directory in its root.

    *timeouts* are for what it hears of the volume's attributes and names.
    """

    # Else the kernel would go by the mode alone, whose group bits are the most that any entry of
    # an access control list grants: the owning group could do what its own entry withholds.
    enable_acl = True
    # The kernel would look "." and ".." up for who has nothing but a file handle (a server of NFS)
    # when it has forgotten the inode itself. So have we by then, and the source would be asked for
    # names that lead out of it.
    supports_dot_lookup = False

    def __init__(
        self,
        mount: Mount,
        machine_room: Control,
        timeouts: Timeouts,
    ) -> None:
        super().__init__()
        self.failsafe = mount.failsafe
        self._mount = mount
        self._volume = volume = mount.cache
        self.shortage = Shortage()
        # The kernel may keep what is written, and with it the size and times of files.
        self.enable_writeback_cache = volume.writeback
        # Each read comes to us then, and nothing that has changed is read from the kernel's cache.
        self._direct = volume.mode == "none"
        self._names = volume.names
        self._modify = volume.modify
        self._turns = volume.executor.turns
        self._control = machine_room
        self._inodes = volume.inodes
        self._entries = Entries(volume.inodes, machine_room, timeouts)
        self._lister = Lister(volume, machine_room, self._entries)
        machine_room.dropper = Dropper(volume)
        self._files: dict[int, OpenFile] = {}
        self._controls: dict[int, OpenControl] = {}
        self._directories: dict[int, Directory] = {}
        self._next_handle = 1
        self._root_stat = LastKnown(lambda: self._names.fstat(volume.inodes.root))
        self._root_statfs = LastKnown(lambda: self._names.statfs(volume.inodes.root))

    def stale(self) -> None:
        """See `HasFailsafe.stale`: what leads to an inode that has gone, leads there no more."""
        self._names.attrcache.clear()

    # -- names -------------------------------------------------------------------------------

    @handler
    async def lookup(self, parent: int, name: bytes, ctx: Any) -> pyfuse3.EntryAttributes:
        if name in (b".", b".."):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        if parent >= OWN_NUMBERS and parent in self._control:
            return self._entries.own(self._control.lookup(parent, name))
        if parent == pyfuse3.ROOT_INODE and name == control.NAME:
            return self._entries.own(self._control.directory)
        return self._entries.remember(*await self._names.lookup(self._inodes.inode(parent), name))

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        slices = self._turns.begin()
        for number, lookups in inode_list:
            await slices.rest()
            try:
                if number not in self._control:
                    self._inodes.forget(number, lookups)
            except Exception as error:
                # Nobody waits for an answer; the others are to be forgotten all the same.
                self.failsafe.note("forget", error, "handler %s failed")

    @handler
    async def mkdir(self, parent: int, name: bytes, mode: int, ctx: Any) -> Any:
        inode = self._parent(parent, name, new=True)
        found = await self._modify.mkdir(inode, name, mode, caller_of(ctx))
        return self._entries.made(found, stat.S_IFDIR | mode)

    @handler
    async def mknod(self, parent: int, name: bytes, mode: int, rdev: int, ctx: Any) -> Any:
        inode = self._parent(parent, name, new=True)
        found = await self._modify.mknod(inode, name, mode, rdev, caller_of(ctx))
        return self._entries.made(found, mode)

    @handler
    async def symlink(self, parent: int, name: bytes, target: bytes, ctx: Any) -> Any:
        inode = self._parent(parent, name, new=True)
        found = await self._modify.symlink(inode, name, target, caller_of(ctx))
        return self._entries.made(found, stat.S_IFLNK | 0o777)

    @handler
    async def link(self, number: int, new_parent: int, new_name: bytes, ctx: Any) -> Any:
        parent, inode = self._parent(new_parent, new_name, new=True), self._inode(number)
        return self._entries.remember(
            *await self._modify.link(inode, parent, new_name, caller_of(ctx))
        )

    @handler
    async def unlink(self, parent: int, name: bytes, ctx: Any) -> None:
        await self._modify.unlink(self._parent(parent, name), name, caller_of(ctx))

    @handler
    async def rmdir(self, parent: int, name: bytes, ctx: Any) -> None:
        await self._modify.rmdir(self._parent(parent, name), name, caller_of(ctx))

    @handler
    async def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int, ctx: Any
    ) -> None:
        old, new = self._parent(parent, name), self._parent(new_parent, new_name)
        await self._modify.rename(old, name, new, new_name, flags, caller_of(ctx))

    @handler
    async def readlink(self, number: int, ctx: Any) -> bytes:
        return await self._names.readlink(self._inode(number))

    # -- attributes --------------------------------------------------------------------------

    @handler
    async def getattr(self, number: int, ctx: Any) -> pyfuse3.EntryAttributes:
        if number >= OWN_NUMBERS and number in self._control:
            return self._entries.own(self._control.entry(number))
        if number == pyfuse3.ROOT_INODE:
            return self._entries.found(self._volume.inodes.root, await self._root_stat.ask())
        return self._entries.found(*await self._names.getattr(self._inodes.inode(number)))

    @handler
    async def setattr(
        self, number: int, attr: Any, fields: Any, fh: int | None, ctx: Any
    ) -> pyfuse3.EntryAttributes:
        if number in self._control:
            # Shells truncate what they redirect to; a knob has nothing that could be cut off.
            entry = self._control.entry(number)
            if fields.update_size and attr.st_size == entry.size:
                return self._entries.own(entry)
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        inode = self._inodes.inode(number)
        # The kernel's own, which kept the time of a write: whoever that was need not own the file.
        flushed = self._volume.writeback and fields.update_mtime and are_flushed_times()
        who = ourselves() if flushed else caller_of(ctx)
        file = None if fh is None else self._files[fh]
        known = await set_attributes(self._volume, inode, file, attr, fields, who)
        try:
            return self._entries.found(inode, await self._names.fstat(inode))
        except OSError:
            if known is None:
                raise
            # It was changed all the same. The kernel asks again when somebody wants to know.
            return self._entries.found(inode, known, FOR_EVER)

    @handler
    async def setxattr(self, number: int, name: bytes, value: bytes, ctx: Any) -> None:
        await self._modify.setxattr(self._inode(number), name, value, changer_of(name, ctx))

    @handler
    async def getxattr(self, number: int, name: bytes, ctx: Any) -> bytes:
        if number in self._control:
            raise pyfuse3.FUSEError(errno.ENODATA)
        inode = self._inodes.inode(number)
        if name == CAPABILITY and "nosuid" in inode.filesystem.forbids:
            raise pyfuse3.FUSEError(errno.ENODATA)
        try:
            return await self._names.getxattr(inode, name)
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP and name.startswith(_ACL):
                # The kernel, which asks before it lets anybody but the owner in, takes "no lists
                # here" for a refusal, and "no list on this file" for what it is.
                raise pyfuse3.FUSEError(errno.ENODATA) from None
            raise

    @handler
    async def listxattr(self, number: int, ctx: Any) -> Sequence[bytes]:
        if number in self._control:
            return []
        names = await self._names.listxattr(self._inodes.inode(number))
        if any(map(_is_trusted, names)) and not caller_of(ctx).administers:
            # The daemon is shown them, and the kernel leaves it to the filesystem to hide them.
            names = [name for name in names if not _is_trusted(name)]
        return names

    @handler
    async def removexattr(self, number: int, name: bytes, ctx: Any) -> None:
        await self._modify.removexattr(self._inode(number), name, changer_of(name, ctx))

    @handler
    async def statfs(self, ctx: Any) -> pyfuse3.StatvfsData:
        asked = session.asked()
        if asked is not None and asked.nodeid not in self._control:
            inode = self._inodes.inode(asked.nodeid)
            if not inode.filesystem.is_root:
                return statvfs(await self._names.statfs(inode))
        return statvfs(await self._root_statfs.ask())

    # -- files -------------------------------------------------------------------------------

    @handler
    async def open(self, number: int, flags: int, ctx: Any) -> pyfuse3.FileInfo:
        handle = self._handle()
        if number >= OWN_NUMBERS and number in self._control:
            # Figures have no size that the kernel could know, and pages of a swap volume must
            # not be in its cache a second time.
            answer = pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(handle), direct_io=True)
            # The last: a swap volume that is open for nobody could never be opened again.
            opened = self._controls[handle] = await self._control.open(number, flags)
            if self._mount.lane is not None:
                opened.grant(self._mount.lane, handle)
            return answer
        file, keep = await self._volume.open(self._inodes.inode(number), flags, caller_of(ctx))
        self._files[handle] = file
        file.handle = handle
        if file.fd >= 0:
            self._volume.granter.opened(file)
        if file.inode.kernel_size != file.data.size and not self._volume.writeback:
            # Else the kernel would end the file where it was, for as long as it may believe that.
            with contextlib.suppress(OSError):
                pyfuse3.invalidate_inode(pyfuse3.InodeT(number), attr_only=True)
        return self._opened(handle, file, keep_cache=keep)

    @handler
    async def create(self, parent: int, name: bytes, mode: int, flags: int, ctx: Any) -> Any:
        inode = self._parent(parent, name, new=True)
        who = caller_of(ctx)
        return self._created(*await self._volume.files.create(inode, name, mode, flags, who))

    @handler
    def read(self, fh: int, off: int, size: int) -> Any:
        file = self._files.get(fh)
        if file is not None:
            return self._volume.read(file, off, size)
        return self._controls[fh].read(off, size)

    @handler
    def write(self, fh: int, off: int, buf: bytes) -> Any:
        file = self._files.get(fh)
        if file is not None:
            return self._volume.write(file, off, buf, writer_of(file))
        return self._controls[fh].write(off, buf)

    @handler
    async def fallocate(self, fh: int, mode: int, offset: int, length: int) -> None:
        # Not a request that pyfuse3 knows: `tmemfs.fuse.rawrequests` passes it on.
        file = self._files.get(fh)
        if file is not None:
            await self._volume.fallocate(file, mode, offset, length, writer_of(file))
        else:
            await self._controls[fh].fallocate(mode, offset, length)

    @handler
    async def lseek(self, fh: int, offset: int, whence: int) -> int:
        # Nor this, nor the next.
        file = self._files.get(fh)
        if file is not None:
            return await self._volume.lseek(file, offset, whence)
        return seek_in_data(self._controls[fh].size, offset, whence)

    @handler
    async def tmpfile(self, parent: int, mode: int, flags: int, umask: int) -> Any:
        asked = session.asked()
        if asked is None:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        who = caller(asked.uid, asked.gid, asked.pid, umask)
        inode = self._inode(parent)
        return self._created(*await self._volume.files.create_unnamed(inode, mode, flags, who))

    @handler
    async def flush(self, fh: int) -> None:
        if fh in self._files:
            await self._volume.flush(self._files[fh])

    @handler
    async def fsync(self, fh: int, datasync: bool) -> None:
        if fh in self._files:
            await self._volume.fsync(self._files[fh], datasync)

    @handler
    async def release(self, fh: int) -> None:
        file = self._files.pop(fh, None)
        if file is not None:
            if fh in self._volume.granter.files:
                self._volume.granter.closed(file)
            await self._volume.release(file)
        else:
            if self._mount.lane is not None:
                self._mount.lane.revoke(fh)
            self._controls.pop(fh).release()

    # -- directories -------------------------------------------------------------------------

    @handler
    async def opendir(self, number: int, ctx: Any) -> int:
        handle = self._handle()
        self._directories[handle] = Directory(number)
        return handle

    @handler
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        await self._lister.read(self._directories[fh], start_id, token)

    @handler
    async def releasedir(self, fh: int) -> None:
        del self._directories[fh]

    @handler
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        number = self._directories[fh].number
        if number not in self._control:
            await self._volume.sync_directory(self._inodes.inode(number))

    # -- inside ------------------------------------------------------------------------------

    def _handle(self) -> int:
        self._next_handle += 1
        return self._next_handle

    def _created(
        self, file: OpenFile, info: os.stat_result
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        handle = self._handle()
        self._files[handle] = file
        file.handle = handle
        if file.fd >= 0:
            self._volume.granter.opened(file)
        entry = self._entries.remember(file.inode, info)
        return self._opened(handle, file, keep_cache=False), entry

    def _opened(self, handle: int, file: OpenFile, *, keep_cache: bool) -> pyfuse3.FileInfo:
        return pyfuse3.FileInfo(
            fh=pyfuse3.FileHandleT(handle),
            direct_io=self._direct or file.direct,
            keep_cache=keep_cache,
            # The extension takes it for "no flush": see fuse/_session.c.
            nonseekable=not file.needs_flush and session.active(),
        )

    def _inode(self, number: int) -> Inode:
        """The inode of an inode that is to be changed; the machine room cannot be."""
        if number in self._control:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        return self._inodes.inode(number)

    def _parent(self, number: int, name: bytes, *, new: bool = False) -> Inode:
        if number == pyfuse3.ROOT_INODE and name == control.NAME:
            code = errno.EEXIST if new else errno.EBUSY
            raise OSError(code, os.strerror(code))
        return self._inode(number)


def _is_trusted(name: bytes) -> bool:
    """Whether that extended attribute is for administrators; see xattr(7)."""
    return name.startswith(b"trusted.")
