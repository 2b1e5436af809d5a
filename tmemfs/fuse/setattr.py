"""A change of attributes: all that one request asks for, in the order that POSIX wants."""

from __future__ import annotations

import os
from typing import Any

from tmemfs.cachefs.inode import Inode
from tmemfs.cachefs.shared import OpenFile
from tmemfs.cachefs.volume import CacheVolume
from tmemfs.fuse.requests import present_times, times_of
from tmemfs.linux.credentials import Caller


async def set_attributes(
    volume: CacheVolume,
    inode: Inode,
    file: OpenFile | None,
    attr: Any,
    fields: Any,
    who: Caller,
) -> os.stat_result | None:
    """Set the attributes of *inode* that *fields* name to those of *attr*, as *who*.

    *file* is the open file by which it is asked for, if any. Returns the attributes that were seen
    then, None where there were none to be had.
    """
    known = None
    if fields.update_size:
        await _truncate(volume, inode, file, attr.st_size, who)
    times = fields.update_atime or fields.update_mtime
    if fields.update_uid or fields.update_gid:
        uid = attr.st_uid if fields.update_uid else -1
        gid = attr.st_gid if fields.update_gid else -1
        known = await volume.modify.chown(inode, uid, gid, who)
    elif not (fields.update_size or fields.update_mode or times):
        # Nothing is to change, which chown(2) may be told: it moves the change time. Or set-ID
        # bits are to go before a write of somebody's, who has it open and need not own it: the
        # write itself clears them.
        try:
            known = await volume.modify.chown(inode, -1, -1, who)
        except PermissionError:
            if inode.data is None:
                raise
    # After the owner, because a change of owner clears the set-ID bits.
    if fields.update_mode:
        known = await volume.modify.chmod(inode, attr.st_mode, who)
    if times:
        try:
            known = await volume.modify.utimens(inode, times_of(attr, fields), who)
        except PermissionError:
            if volume.writeback and fields.update_size:
                return known  # the truncation has moved them
            present = present_times(attr, fields, writeback=volume.writeback)
            if present is None:
                raise
            known = await volume.modify.utimens(inode, present, who)
    return known


async def _truncate(
    volume: CacheVolume, inode: Inode, file: OpenFile | None, size: int, who: Caller
) -> None:
    if file is not None:
        await volume.truncate(file, size, who)
        return
    opened, _ = await volume.open(inode, os.O_WRONLY, who)
    try:
        await volume.truncate(opened, size, who)
    finally:
        await volume.release(opened)
