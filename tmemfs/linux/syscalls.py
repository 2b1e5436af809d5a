"""System calls that Python does not wrap: openat2, renames with flags, file handles, and more.

All raise OSError as the functions of `os` do.
"""

import ctypes
import os
import sys

_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_AT_STATX_FORCE_SYNC = 0x2000
_STATX_BASIC_STATS = 0x7FF
_AT_STATX_DONT_SYNC = 0x4000
_STATX_MNT_ID = 0x1000
_STATX_MNT_ID_UNIQUE = 0x4000
_STATX_MNT_ID_OFFSET = 144
_STATX_BYTES = 256
_MAX_HANDLE = 128
_SYS_OPENAT2 = 437
_RESOLVE_NO_XDEV = 0x01
_RESOLVE_CACHED = 0x20

UTIME_NOW, UTIME_OMIT = 1 << 80, 1 << 81
"""in place of a time in ns: now, as the file's own filesystem has it; as it was"""

FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE = 1, 2, 16
"""modes of fallocate(2), all of those that move no bytes"""

_libc = ctypes.CDLL(None, use_errno=True)
# Where a file may be larger than a long, with the name that says so.
_utimensat = _libc.utimensat
_fallocate = getattr(_libc, "fallocate64", _libc.fallocate)


class _FileHandle(ctypes.Structure):
    _fields_ = (
        ("handle_bytes", ctypes.c_uint),
        ("handle_type", ctypes.c_int),
        ("f_handle", ctypes.c_ubyte * _MAX_HANDLE),
    )


_HEADER = _FileHandle.f_handle.offset


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("ns", ctypes.c_long))


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


_HERE, _CACHED = (
    _OpenHow(os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, 0, _RESOLVE_NO_XDEV | resolve)
    for resolve in (0, _RESOLVE_CACHED)
)


_HOW_BYTES = ctypes.c_size_t(ctypes.sizeof(_OpenHow))


def _checked(result: int, name: object = None) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), name)
    return result


def open_here(directory: int, name: bytes, *, cached: bool = False) -> int:
    """Open *name* in *directory*, ``O_PATH``, if it is on the same mount; return a descriptor.

    EXDEV where something is mounted on it. With *cached* the call never waits: EAGAIN where the
    kernel does not have the name in memory, or would have to cross into a mount. ENOSYS before
    Linux 5.6; EINVAL with *cached* before 5.12. See openat2(2).
    """
    how = _CACHED if cached else _HERE
    fd: int = _libc.syscall(_SYS_OPENAT2, directory, name, ctypes.byref(how), _HOW_BYTES)
    # Here and below without _checked(): these are most of what a lookup costs.
    if fd < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), name)
    return fd


def renameat2(old_dir: int, old: bytes, new_dir: int, new: bytes, flags: int) -> None:
    """Rename *old* in directory *old_dir* to *new* in *new_dir*; see renameat2(2) for *flags*."""
    _checked(_libc.renameat2(old_dir, old, new_dir, new, ctypes.c_uint(flags)), old)


def file_handle(fd: int) -> bytes:
    """Return the handle of what *fd* is open on, an ``O_PATH`` one too.

    A handle names an inode for as long as it lives, and no later inode of the same number.
    See name_to_handle_at(2); EOPNOTSUPP where the filesystem has no handles.
    """
    handle = _FileHandle(_MAX_HANDLE)
    mount_id = ctypes.c_int()
    result = _libc.name_to_handle_at(
        fd, b"", ctypes.byref(handle), ctypes.byref(mount_id), _AT_EMPTY_PATH
    )
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return bytes(handle)[: _HEADER + handle.handle_bytes]


def open_file_handle(mount_fd: int, handle: bytes, flags: int) -> int:
    """Open the inode of *handle*, on the filesystem that *mount_fd* is on; return a descriptor.

    ESTALE when the inode is gone, EPERM without CAP_DAC_READ_SEARCH.
    """
    struct = _FileHandle.from_buffer_copy(handle.ljust(ctypes.sizeof(_FileHandle), b"\0"))
    return _checked(_libc.open_by_handle_at(mount_fd, ctypes.byref(struct), flags | os.O_CLOEXEC))


def utimens(path: str, atime: int, mtime: int) -> None:
    """Set access and modification time of *path*: ns since the epoch, `UTIME_NOW` or `UTIME_OMIT`.

    Who may write a file may set both to now, and only its owner to anything else. See utimensat(2).
    """
    times = (_Timespec * 2)(*map(_timespec, (atime, mtime)))
    _checked(_utimensat(_AT_FDCWD, os.fsencode(path), times, 0), path)


# What utimensat(2) takes for them, in place of ns.
_SPECIAL_TIMES = {UTIME_NOW: (1 << 30) - 1, UTIME_OMIT: (1 << 30) - 2}


def _timespec(time: int) -> _Timespec:
    if time in _SPECIAL_TIMES:
        return _Timespec(0, _SPECIAL_TIMES[time])
    return _Timespec(*divmod(time, 10**9))


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """Allocate, punch out or zero *length* bytes at *offset*; see fallocate(2) for *mode*."""
    _checked(_fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)))


def mount_id(fd: int, *, unique: bool = False) -> int:
    """Return the number, as in mountinfo, of the mount that *fd* was opened on; -1 if unknown.

    A *unique* one is not in mountinfo, and no other mount gets it later. The filesystem is not
    asked. Unknown before Linux 5.8, the unique one before 6.8. See statx(2).
    """
    wanted = _STATX_MNT_ID_UNIQUE if unique else _STATX_MNT_ID
    buffer = ctypes.create_string_buffer(_STATX_BYTES)
    flags = _AT_EMPTY_PATH | _AT_STATX_DONT_SYNC
    _checked(_libc.statx(fd, b"", flags, ctypes.c_uint(wanted), buffer))
    if not int.from_bytes(buffer.raw[:4], sys.byteorder) & wanted:
        return -1
    start = _STATX_MNT_ID_OFFSET
    return int.from_bytes(buffer.raw[start : start + 8], sys.byteorder)


def fstat_synced(fd: int) -> os.stat_result:
    """Return the attributes of *fd* as its filesystem has them now, an ``O_PATH`` one too.

    `os.fstat` may return what a network filesystem has been told some seconds ago; an open of the
    file would ask its server, and so does this. See statx(2).
    """
    buffer = ctypes.create_string_buffer(_STATX_BYTES)
    flags = _AT_EMPTY_PATH | _AT_STATX_FORCE_SYNC
    # What it returns has no name in Python; what counts is that the kernel has asked by now.
    _checked(_libc.statx(fd, b"", flags, ctypes.c_uint(_STATX_BASIC_STATS), buffer))
    return os.fstat(fd)
