"""What a request says of itself: who asks, and which times are meant."""

from __future__ import annotations

import time
from typing import Any

from tmemfs.cachefs.shared import OpenFile
from tmemfs.fuse import session
from tmemfs.linux.credentials import Caller, caller, ourselves
from tmemfs.linux.syscalls import UTIME_NOW, UTIME_OMIT

CAPABILITY = b"security.capability"

_JUST_NOW_NS = 10**9
# Flags of requests, as the kernel's linux/fuse.h has them: of a write, and of a change of
# attributes.
_WRITE_CACHE = 1
_MTIME, _FH, _ATIME_NOW, _MTIME_NOW, _LOCKOWNER, _CTIME = (1 << bit for bit in range(5, 11))
_FLUSHED_TIMES = _MTIME | _CTIME | _FH | _LOCKOWNER


def caller_of(ctx: Any) -> Caller:
    """Who asks, by pyfuse3's context of the request."""
    return caller(ctx.uid, ctx.gid, ctx.pid, ctx.umask)


def changer_of(name: bytes, ctx: Any) -> Caller:
    """As whom an extended attribute is set or removed.

    Those of a file's capabilities as ourselves: the kernel has seen to it that the caller may, in
    the caller's user namespace. And it has them removed by whoever writes to the file.
    """
    return ourselves() if name == CAPABILITY else caller_of(ctx)


def writer_of(file: OpenFile) -> Caller:
    """Who writes to *file*: who has opened it, unless the request says that it is another one."""
    asked = session.asked()
    if asked is None or asked.flags & _WRITE_CACHE:  # the kernel, some time after somebody did
        return file.caller
    if (asked.uid, asked.gid) == file.caller[:2]:
        return file.caller
    return caller(asked.uid, asked.gid, asked.pid)


def are_flushed_times() -> bool:
    """Whether a change of attributes is the kernel's own, which kept the time of a write."""
    asked = session.asked()
    return asked is not None and not asked.flags & ~_FLUSHED_TIMES


def present_times(attr: Any, fields: Any, *, writeback: bool) -> tuple[int, int] | None:
    """What sets both times to the present one, if that may be what is to be done.

    Whoever may write to a file may have that done; another time, only its owner. With writeback the
    kernel says which time it is; where it cannot be asked (`session.asked`), pyfuse3 does.
    """
    asked = session.asked()
    if asked is None:
        now = time.time_ns()
        meant = all(abs(now - t) < _JUST_NOW_NS for t in (attr.st_atime_ns, attr.st_mtime_ns))
    else:
        meant = writeback and bool(asked.flags & _ATIME_NOW)
    both = fields.update_atime and fields.update_mtime
    return (UTIME_NOW, UTIME_NOW) if meant and both else None


def times_of(attr: Any, fields: Any) -> tuple[int, int]:
    """The times that are to be set, as `tmemfs.linux.syscalls.utimens` has them."""
    asked = session.asked()
    flags = asked.flags if asked else 0
    atime = UTIME_NOW if flags & _ATIME_NOW else attr.st_atime_ns
    mtime = UTIME_NOW if flags & _MTIME_NOW else attr.st_mtime_ns
    return (
        atime if fields.update_atime else UTIME_OMIT,
        mtime if fields.update_mtime else UTIME_OMIT,
    )
