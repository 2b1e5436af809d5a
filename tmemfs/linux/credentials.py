"""Who asks, and how a thread acts as them: their file-system ids, groups, capabilities and umask.

A mount of root's serves everybody. What a caller changes is changed with the caller's own rights,
so that the source decides what it would decide without us: whose a new file is, which set-ID bits
go, whether the disk is full for them. The ids in question belong to a thread (credentials(7)), and
are changed around one system call, in the thread that makes it.

Where the daemon is not root it can act as nobody else, and everything is done with its own rights.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import platform
import re
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

# Neither may give up the interpreter's lock: they take less than that would, and other threads must
# not be waited for eight times around one call.
_libc = ctypes.PyDLL(None, use_errno=True)

# The C library's setgroups() changes all threads of a process; the system call only its own.
_SETGROUPS = {
    "x86_64": 116,
    "aarch64": 159,
    "riscv64": 159,
    "loongarch64": 159,
    "ppc64le": 81,
    "s390x": 206,
    "i686": 206,
    "armv7l": 206,
}.get(platform.machine())
_CLONE_FS = 0x200
_CAPABILITY_VERSION_3 = 0x20080522
_NOBODY = 0xFFFFFFFF  # (uid_t) -1: changes nothing, and says who it is

# Numbers of capabilities(7).
_SETGID, _SETUID, _SYS_ADMIN = 6, 7, 21
_KEPT = (
    *(0, 1, 2, 3, 4),  # chown, dac_override, dac_read_search, fowner, fsetid
    *(_SETGID, _SETUID),
    9,  # linux_immutable
    14,  # ipc_lock: a budget that grows
    19,  # sys_ptrace: in which user namespace a caller is
    _SYS_ADMIN,  # trusted extended attributes, and to unmount at the end
    24,  # sys_resource: what the disk keeps for root, and quotas, when root asks
    27,  # mknod
    31,  # setfcap
    *(32, 33),  # mac_override, mac_admin: labels
)
_KEPT_SET = sum(1 << number for number in _KEPT)
"""What a daemon goes on to need once it serves; that its callers use through it, for the most."""

_STATUS = re.compile(
    rb"^Uid:.*\t(\d+)\nGid:.*\t(\d+)\n(?:.*\n)*?Groups:(.*)\n(?:.*\n)*?CapEff:\t(\w+)", re.MULTILINE
)


class Caller(NamedTuple):
    """Who asks: file-system ids, supplementary groups, effective capabilities (a set of bits).

    *umask* is for what they make.
    """

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    capabilities: int = 0
    umask: int = 0

    @property
    def administers(self) -> bool:
        """Whether they have CAP_SYS_ADMIN."""
        return bool(self.capabilities & 1 << _SYS_ADMIN)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    """Lower and upper half: effective, permitted, inheritable, each 32 bits."""

    _fields_ = (("words", ctypes.c_uint32 * 6),)


class _Own:
    """What this process is: its ids, its groups, and the capabilities of its threads."""

    def __init__(self) -> None:
        self.uid, self.gid = os.geteuid(), os.getegid()
        self.groups = tuple(os.getgroups())
        sets = _capget()
        self.permitted = _permitted(sets)
        needed = 1 << _SETUID | 1 << _SETGID
        self.switches = self.permitted & needed == needed and _SETGROUPS is not None
        """whether it can act as somebody else"""
        self.caller = Caller(self.uid, self.gid, self.groups, self.permitted)
        self.user_namespace = _user_namespace(os.getpid())


def _capget(thread: int = 0) -> _Sets:
    sets = _Sets()
    header = _Header(_CAPABILITY_VERSION_3, thread)
    if result := _libc.capget(ctypes.byref(header), ctypes.byref(sets)):
        _check(result)
    return sets


def _permitted(sets: _Sets) -> int:
    return int(sets.words[1] | sets.words[4] << 32)


def _set_capabilities(effective: int, permitted: int) -> None:
    """Set those of this thread."""
    sets = _Sets()
    sets.words[0], sets.words[1] = effective & 0xFFFFFFFF, permitted & 0xFFFFFFFF
    sets.words[3], sets.words[4] = effective >> 32, permitted >> 32
    header = _Header(_CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(ctypes.byref(header), ctypes.byref(sets)))


def _set_groups(groups: tuple[int, ...]) -> None:
    """Set the supplementary groups of this thread."""
    array = (ctypes.c_uint32 * len(groups))(*groups)
    _check(_libc.syscall(_SETGROUPS, ctypes.c_size_t(len(groups)), array))


def _set_ids(uid: int, gid: int) -> None:
    """Set the file-system ids of this thread."""
    _libc.setfsgid(ctypes.c_uint32(gid))
    _libc.setfsuid(ctypes.c_uint32(uid))
    # They report no errors, only who it was.
    who = (
        _libc.setfsuid(ctypes.c_uint32(_NOBODY)) & _NOBODY,
        _libc.setfsgid(ctypes.c_uint32(_NOBODY)) & _NOBODY,
    )
    if who != (uid, gid):
        raise OSError(errno.EPERM, "cannot act as the caller")


def _check(result: int) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


@functools.cache
def _own() -> _Own:
    return _Own()


def ourselves() -> Caller:
    """Return who this process is itself."""
    return _own().caller


def may_open_all() -> bool:
    """Say whether this process may open any file of a local filesystem (CAP_DAC_OVERRIDE)."""
    return bool(_own().permitted & 1 << 1)


def give_up() -> None:
    """Give up, for good, the capabilities that serving needs not. Before there are threads."""
    _own.cache_clear()  # this process may be the child of one that was somebody else
    permitted = _own().permitted & _KEPT_SET
    _set_capabilities(permitted, permitted)
    _own.cache_clear()


def caller(uid: int, gid: int, pid: int, umask: int = 0) -> Caller:
    """Return who asks, by the ids of a request and the thread *pid* that waits for its answer.

    Groups and capabilities are those of that thread. It cannot be asked when it is in a pid
    namespace that cannot be seen from here, or has other ids than the request (a filesystem or a
    server between it and us acts as somebody): then there are none, but for root, who asks with
    whatever we have.
    """
    own = _own()
    if not own.switches:
        return Caller(uid, gid, umask=umask)
    if uid == own.uid and gid == own.gid and _has_all_of(own, pid):
        # The way of most requests of root's: the text of /proc takes four times as long.
        return Caller(uid, gid, own.groups, own.permitted, umask)
    try:
        with open(f"/proc/{pid}/status", "rb", buffering=0) as file:
            found = _STATUS.search(file.readall())
    except OSError:
        found = None
    if pid <= 0 or found is None or (int(found[1]), int(found[2])) != (uid, gid):
        return Caller(uid, gid, (), 0 if uid else own.permitted, umask)
    # In a user namespace of their own they may have all of them, and none here.
    capabilities = int(found[4], 16) & own.permitted
    if capabilities and _user_namespace(pid) != own.user_namespace:
        capabilities = 0
    return Caller(uid, gid, tuple(map(int, found[3].split())), capabilities, umask)


def _has_all_of(own: _Own, thread: int) -> bool:
    """Whether a thread has all capabilities that we have, here and not in a namespace of its own.

    With them, it does not matter which groups it has, nor whether it has the ids that it asks with.
    """
    if thread <= 0:
        return False
    try:
        words = _capget(thread).words
    except OSError:
        return False
    effective = words[0] | words[3] << 32
    if effective & own.permitted != own.permitted:
        return False
    return _user_namespace(thread) == own.user_namespace


def _user_namespace(pid: int) -> tuple[int, int] | None:
    try:
        info = os.stat(f"/proc/{pid}/ns/user")
    except OSError:
        return None
    return info.st_dev, info.st_ino


class _Thread(threading.local):
    """Whether this thread has a umask of its own; None before it was tried."""

    alone: bool | None = None


_thread = _Thread()


def has_own_umask() -> bool:
    """Say whether this thread may set its umask; a process's threads share one unless told not to.

    The main thread may: no other one that shares it makes anything.
    """
    if _thread.alone is None:
        _thread.alone = True
        if threading.current_thread() is not threading.main_thread():
            _thread.alone = _libc.unshare(_CLONE_FS) == 0  # refused in some containers
            if _thread.alone:
                os.umask(0)
    return _thread.alone


class acting_as:  # noqa: N801 - as contextlib's own
    """A context in which this thread is *caller*, as far as files are concerned.

    Raises EPERM where it cannot be. Nothing may be awaited in it.
    """

    __slots__ = ("_caller",)

    def __init__(self, caller: Caller) -> None:
        own = _own()
        if own.switches:
            # With all that we have, groups decide nothing.
            same = (*caller[:2], caller.capabilities) == (own.uid, own.gid, own.permitted)
        else:
            same = bool(own.uid)
            if not (same or caller.uid == own.uid):  # root that is not permitted to be others
                raise OSError(errno.EPERM, "cannot act as the caller")
        self._caller = None if same else caller

    def __enter__(self) -> None:
        if self._caller is None:
            return
        try:
            _set_groups(self._caller.groups)
            _set_ids(self._caller.uid, self._caller.gid)
            _set_capabilities(self._caller.capabilities, _own().permitted)
        except BaseException:
            self._leave()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._caller is not None:
            self._leave()

    def _leave(self) -> None:
        """Be the daemon again, which cannot fail: all of it is permitted to whoever was root."""
        own = _own()
        _set_capabilities(own.permitted, own.permitted)
        _set_ids(own.uid, own.gid)
        _set_groups(own.groups)


def as_caller(caller: Caller, function: Callable[..., T], *args: Any, **options: Any) -> T:
    """Call *function* as *caller*, in this thread."""
    with acting_as(caller):
        return function(*args, **options)
