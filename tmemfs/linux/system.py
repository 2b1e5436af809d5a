"""What the machine says about its memory and its mounts, and how a mount is tuned and taken away.

Nothing here waits for a filesystem that does not answer: what has to ask one is given a deadline.
Lists come from /proc/self/mountinfo, never from stat, because stat on a mount whose daemon is
stopped does not return.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import os
import queue
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

FSTYPE = "fuse.tmemfs"
ANSWER_SECONDS = 5.0  # a daemon that serves answers in milliseconds, on a busy machine in tenths

# What the kernel says of a FUSE mount whose daemon is gone, was cut off, or never came up.
_GONE = frozenset({errno.ENOTCONN, errno.ECONNABORTED, errno.ECONNREFUSED})

_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo (proc(5)), its octal escapes undone."""

    mount_id: int
    parent_id: int
    device: tuple[int, int]  # major, minor
    mountpoint: str
    options: frozenset[str]
    fstype: str
    source: str
    super_options: frozenset[str]


class MountState(enum.Enum):
    """Whether somebody serves a FUSE mount."""

    ALIVE = "alive"
    STALE = "stale"  # the daemon is gone; only unmounting helps
    SILENT = "silent"  # there is a daemon, and it does not answer


def physical_memory() -> int:
    """The machine's memory in bytes, without swap."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def usable_memory() -> int:
    """The memory in bytes that this process may come to have: the machine's, or its cgroups'."""
    return min([physical_memory(), *memory_limits()])


def memory_limits(groups: str = "/proc/self/cgroup", top: str = "/sys/fs/cgroup") -> list[int]:
    """The limits in bytes of the memory cgroups that this process is in, and all above them.

    Of version 1 and 2, which may be there at once; *groups* is as in cgroups(7).
    """
    limits = []
    for line in _text(groups).splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            places, file = [f"{top}/memory"], "memory.limit_in_bytes"
        elif not controllers:
            places, file = [top, f"{top}/unified"], "memory.max"
        else:
            continue
        parts = [part for part in path.split("/") if part]
        for place in places:
            for depth in range(len(parts) + 1):
                text = _text("/".join([place, *parts[:depth], file])).strip()
                if text.isdigit():  # else "max", or there is none
                    limits.append(int(text))
    return limits


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def available_memory() -> int:
    """How many bytes programs can get without swapping: MemAvailable of proc(5)."""
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return 0


def read_mounts(path: str = "/proc/self/mountinfo") -> list[Mount]:
    """All mounts that this process sees, a mount on top of another one after it."""
    with open(path, "rb") as file:
        return [_parse_mount(line) for line in file]


def tmemfs_mounts() -> list[Mount]:
    """The mounts of tmemfs that this process sees, those hidden under others included."""
    return [mount for mount in read_mounts() if mount.fstype == FSTYPE]


def mount_at(mountpoint: str) -> Mount | None:
    """What is mounted at exactly this canonical path, the topmost if several; None if nothing."""
    here = [mount for mount in read_mounts() if mount.mountpoint == mountpoint]
    return here[-1] if here else None


def mounts_of(device: tuple[int, int]) -> Iterator[tuple[int | None, Mount]]:
    """Where else the filesystem with this number is mounted: here (None) first, then elsewhere.

    Elsewhere is in the mount namespace of a process, of which one is named for each; those of
    processes that the caller may not look at are left out.
    """
    yield from ((None, mount) for mount in read_mounts() if mount.device == device)
    seen = {os.stat("/proc/self/ns/mnt").st_ino}
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        with suppress(OSError):  # it has ended, or is somebody else's
            namespace = os.stat(f"/proc/{pid}/ns/mnt").st_ino
            if namespace not in seen:
                seen.add(namespace)
                mounts = read_mounts(f"/proc/{pid}/mountinfo")
                yield from ((pid, mount) for mount in mounts if mount.device == device)


def canonical_path(path: str) -> str:
    """`path` absolute and without symbolic links, not touching a mount that is at its end.

    The last component is looked at only where nothing is mounted there, so that the path of a
    mount that does not answer is found out without asking it.
    """
    head, name = os.path.split(path.rstrip("/"))
    if name in ("", ".", ".."):
        return os.path.realpath(path)
    candidate = os.path.join(os.path.realpath(head or "."), name)
    return candidate if mount_at(candidate) else os.path.realpath(candidate)


class Call(Generic[T]):
    """A call under way in a thread of its own, which does not keep the process alive.

    A system call that waits for a filesystem cannot be taken back, but need not be waited for.
    Raises OSError where no thread is to be had.
    """

    def __init__(self, call: Callable[[], T]) -> None:
        self._outcome: queue.SimpleQueue[tuple[T | None, BaseException | None]]
        self._outcome = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, args=(call,), daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            raise OSError(errno.EAGAIN, str(error)) from None

    @property
    def under_way(self) -> bool:
        """Whether it may still be waited for."""
        return self._thread.is_alive()

    def result(self, seconds: float) -> T:
        """What it returns or raises, once; TimeoutError when it is not back in time."""
        try:
            result, error = self._outcome.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError(errno.ETIMEDOUT, f"no answer within {seconds:g} seconds") from None
        self._thread.join()  # who forks afterwards does so with one thread
        if error is not None:
            raise error
        return result  # type: ignore[return-value]  # None only where T allows it

    def _run(self, call: Callable[[], T]) -> None:
        try:
            self._outcome.put((call(), None))
        except BaseException as exc:  # handed to the caller, whatever it is
            self._outcome.put((None, exc))


def within(seconds: float, call: Callable[[], T]) -> T:
    """What `call()` returns or raises, or TimeoutError when it is not back in time."""
    return Call(call).result(seconds)


def probe(mountpoint: str) -> MountState:
    """Whether the FUSE mount at `mountpoint` is served.

    By statvfs, which the kernel always hands to the daemon; attributes may come from its cache
    and seem alive for a while after the daemon was killed.
    """
    try:
        within(ANSWER_SECONDS, lambda: os.statvfs(mountpoint))
    except TimeoutError:
        return MountState.SILENT
    except OSError as exc:
        if is_gone(exc):
            return MountState.STALE
        if exc.errno not in (errno.EACCES, errno.EPERM):  # somebody else's mount: it lives
            raise
    return MountState.ALIVE


def is_gone(exc: OSError) -> bool:
    """Whether a call failed because nobody serves the FUSE mount any more."""
    return exc.errno in _GONE


def raise_readahead(mount: Mount, size: int) -> bool:
    """Let the kernel read up to *size* bytes ahead on *mount*; say whether it was permitted.

    FUSE has no word for more than the 128 KiB that every filesystem starts with. Who set it higher
    knows better.
    """
    major, minor = mount.device
    try:
        with open(f"/sys/class/bdi/{major}:{minor}/read_ahead_kb", "r+", encoding="ascii") as file:
            if int(file.read()) < size >> 10:
                file.seek(0)
                file.write(str(size >> 10))
    except OSError:
        return False
    return True


def unmount(mountpoint: str, *, lazy: bool = False) -> None:
    """Take the topmost mount away from `mountpoint`; lazily: even if it is in use or stale.

    Raises OSError: EBUSY where it is in use, EPERM where the caller may not, ENOENT where a user
    without privileges lacks the program fusermount3.
    """
    if os.geteuid() == 0:
        flags = _UMOUNT_NOFOLLOW | (_MNT_DETACH if lazy else 0)
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.umount2(os.fsencode(mountpoint), flags) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), mountpoint)
        return
    command = ["fusermount3", "-u", *(["-z"] if lazy else []), "--", mountpoint]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        text = os.fsdecode(done.stderr).strip().removeprefix("fusermount3: ")
        code = errno.EBUSY if text.endswith(os.strerror(errno.EBUSY)) else errno.EPERM
        raise OSError(code, text, mountpoint)


def _parse_mount(line: bytes) -> Mount:
    # 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
    before, _, after = line.partition(b" - ")
    mount_id, parent_id, device, _root, mountpoint, options = before.split(b" ")[:6]
    fstype, source, super_options = after.rstrip(b"\n").split(b" ")[:3]
    major, _, minor = device.partition(b":")
    return Mount(
        mount_id=int(mount_id),
        parent_id=int(parent_id),
        device=(int(major), int(minor)),
        mountpoint=unescape(mountpoint),
        options=frozenset(os.fsdecode(options).split(",")),
        fstype=unescape(fstype),
        source=unescape(source),
        super_options=frozenset(os.fsdecode(super_options).split(",")),
    )


def unescape(field: bytes) -> str:
    """A field of mountinfo or /proc/swaps with `\\040` and the like undone."""
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), field))
