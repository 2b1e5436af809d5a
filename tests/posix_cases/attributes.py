"""Attributes: modes, owners, times, extended attributes."""

import os
import time
from pathlib import Path

from posix_cases.runner import attempt, case, look, make, opened

NS = 1_000_000_000


@case
def chmod_of_files(d: Path):
    make(d / "f")
    seen = []
    for mode in (0o600, 0o777, 0, 0o4755, 0o2755, 0o6711, 0o1644, 0o7777):
        os.chmod(d / "f", mode)
        seen.append(look(d / "f")["mode"])
    return seen


@case
def chmod_of_directories(d: Path):
    os.mkdir(d / "sub")
    seen = []
    for mode in (0o700, 0o1777, 0o2770, 0o4755, 0):
        os.chmod(d / "sub", mode)
        seen.append(look(d / "sub")["mode"])
    return seen


@case
def chmod_through_a_link_and_of_nothing(d: Path):
    make(d / "f")
    os.symlink("f", d / "l")
    os.chmod(d / "l", 0o640)
    return look(d / "f"), look(d / "l"), attempt(os.chmod, d / "none", 0o600)


@case
def fchmod_of_an_open_file(d: Path):
    make(d / "f")
    return opened(d / "f", os.O_RDONLY, lambda fd: (os.fchmod(fd, 0o601), look(fd)))


@case
def chown_of_each_kind(d: Path):
    make(d / "f")
    os.mkdir(d / "sub")
    os.symlink("f", d / "l")
    os.mkfifo(d / "p")
    for name in ("f", "sub", "l", "p"):
        os.lchown(d / name, 1234, 5678)
    return {name: look(d / name) for name in ("f", "sub", "l", "p")}


@case
def chown_of_one_half(d: Path):
    make(d / "f")
    os.chown(d / "f", 1111, 2222)
    os.chown(d / "f", 3333, -1)
    first = look(d / "f")
    os.chown(d / "f", -1, 4444)
    os.chown(d / "f", -1, -1)
    return first, look(d / "f")


@case
def chown_clears_the_set_id_bits(d: Path):
    make(d / "f")
    os.mkdir(d / "sub")
    for name in ("f", "sub"):
        os.chmod(d / name, 0o6755)
        os.chown(d / name, 1234, 1234)
    return look(d / "f"), look(d / "sub")


@case
def chown_through_a_link(d: Path):
    make(d / "f")
    os.symlink("f", d / "l")
    os.chown(d / "l", 1234, 1234)
    return look(d / "f"), look(d / "l")


# -- times ------------------------------------------------------------------------------------


def times(path: Path) -> tuple[int, int]:
    info = os.lstat(path)
    return info.st_atime_ns, info.st_mtime_ns


@case
def times_have_nanoseconds(d: Path):
    make(d / "f")
    seen = []
    for ns in ((1, 2), (123_456_789_987_654_321, 1_600_000_000_000_000_001), (0, 0)):
        os.utime(d / "f", ns=ns)
        seen.append(times(d / "f"))
    return seen


@case
def times_before_1970_and_after_2038(d: Path):
    make(d / "f")
    os.utime(d / "f", ns=(-NS, 3 * 10**18))
    return times(d / "f")


@case
def times_of_each_kind(d: Path):
    os.mkdir(d / "sub")
    os.mkfifo(d / "p")
    make(d / "f")
    os.symlink("f", d / "l")
    for number, name in enumerate(("sub", "p", "f", "l")):
        os.utime(d / name, ns=(number + 5, number + 7), follow_symlinks=False)
    return {name: times(d / name) for name in ("sub", "p", "f", "l")}


@case
def times_through_a_link(d: Path):
    make(d / "f")
    os.symlink("f", d / "l")
    os.utime(d / "l", ns=(5, 7))
    return times(d / "f"), times(d / "l")[1] > NS


def _utimens(path: Path, atime: int, mtime: int) -> None:
    import ctypes

    class Timespec(ctypes.Structure):
        _fields_ = (("sec", ctypes.c_long), ("nsec", ctypes.c_long))

    libc = ctypes.CDLL(None, use_errno=True)
    both = (Timespec * 2)(Timespec(0, atime), Timespec(0, mtime))
    if libc.utimensat(-100, os.fsencode(path), both, 0) < 0:
        raise OSError(ctypes.get_errno(), "utimensat")


NOW, OMIT = (1 << 30) - 1, (1 << 30) - 2


@case
def one_time_is_left_as_it_is(d: Path):
    make(d / "f")
    os.utime(d / "f", ns=(1001, 2002))
    _utimens(d / "f", 55, OMIT)
    first = times(d / "f")
    _utimens(d / "f", OMIT, 66)
    second = times(d / "f")
    _utimens(d / "f", OMIT, OMIT)
    return first, second, times(d / "f")


@case
def one_time_is_now(d: Path):
    make(d / "f")
    os.utime(d / "f", ns=(1001, 2002))
    before = time.time_ns() - NS
    _utimens(d / "f", NOW, OMIT)
    atime, mtime = times(d / "f")
    return before < atime < time.time_ns() + NS, mtime


@case
def both_times_are_now(d: Path):
    make(d / "f")
    os.utime(d / "f", ns=(1001, 2002))
    before = time.time_ns() - NS
    os.utime(d / "f")
    return [before < value < time.time_ns() + NS for value in times(d / "f")]


@case
def times_of_nothing(d: Path):
    return attempt(os.utime, d / "none"), attempt(_utimens, make(d / "f"), 10**9, 0)


@case
def what_changes_the_modification_time(d: Path):
    def touched(change) -> bool:
        os.utime(d / "f", ns=(1001, 2002))
        change()
        return os.stat(d / "f").st_mtime_ns != 2002

    make(d / "f", b"text")
    return [
        touched(lambda: make(d / "f", b"else")),
        touched(lambda: os.truncate(d / "f", 2)),
        touched(lambda: os.chmod(d / "f", 0o600)),
        touched(lambda: os.link(d / "f", d / "g")),
        touched(lambda: os.rename(d / "g", d / "h")),
        touched((d / "f").read_bytes),
        touched(lambda: opened(d / "f", os.O_RDWR, lambda fd: None)),
    ]


@case
def truncate_to_the_same_size_and_its_times(d: Path):
    make(d / "f", b"text")
    os.utime(d / "f", ns=(1001, 2002))
    os.truncate(d / "f", 4)
    return os.stat(d / "f").st_mtime_ns != 2002


@case
def what_changes_a_directorys_time(d: Path):
    os.mkdir(d / "sub")

    def touched(change) -> bool:
        os.utime(d / "sub", ns=(1001, 2002))
        change()
        return os.stat(d / "sub").st_mtime_ns != 2002

    return [
        touched(lambda: make(d / "sub" / "f")),
        touched(lambda: make(d / "sub" / "f", b"again")),
        touched(lambda: os.rename(d / "sub" / "f", d / "sub" / "g")),
        touched(lambda: os.unlink(d / "sub" / "g")),
        touched(lambda: os.mkdir(d / "sub" / "s")),
        touched(lambda: os.listdir(d / "sub")),
        touched(lambda: os.rmdir(d / "sub" / "s")),
    ]


@case
def change_time_moves_with_every_change(d: Path):
    make(d / "f", b"x")

    def moved(change) -> bool:
        before = os.stat(d / "f").st_ctime_ns
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:  # until the filesystem's clock has ticked
            change()
            if os.stat(d / "f").st_ctime_ns > before:
                return True
        return False

    return [
        moved(lambda: os.chmod(d / "f", 0o600)),
        moved(lambda: os.chown(d / "f", 5, 5)),
        moved(lambda: os.utime(d / "f", ns=(5, 5))),
        moved(lambda: os.setxattr(d / "f", "user.x", b"y")),
        moved(lambda: opened(d / "f", os.O_WRONLY, lambda fd: os.write(fd, b"z"))),
    ]


# -- access -----------------------------------------------------------------------------------


@case
def access_as_root(d: Path):
    make(d / "f")
    os.chmod(d / "f", 0)
    return [os.access(d / "f", mode) for mode in (os.F_OK, os.R_OK, os.W_OK, os.X_OK)]


@case
def access_of_nothing(d: Path):
    return os.access(d / "none", os.F_OK), os.access(make(d / "f") / "x", os.F_OK)


# -- extended attributes ----------------------------------------------------------------------


@case
def xattr_is_kept(d: Path):
    make(d / "f")
    os.mkdir(d / "sub")
    for name in ("f", "sub"):
        os.setxattr(d / name, "user.one", b"value \0 with anything \xff")
        os.setxattr(d / name, "user.empty", b"")
        os.setxattr(d / name, "trusted.root", b"r")
    return [
        (sorted(os.listxattr(d / name)), os.getxattr(d / name, "user.one")) for name in ("f", "sub")
    ]


@case
def xattr_flags(d: Path):
    make(d / "f")
    return (
        attempt(os.setxattr, d / "f", "user.x", b"1", os.XATTR_REPLACE),
        attempt(os.setxattr, d / "f", "user.x", b"2", os.XATTR_CREATE),
        attempt(os.setxattr, d / "f", "user.x", b"3", os.XATTR_CREATE),
        attempt(os.setxattr, d / "f", "user.x", b"4", os.XATTR_REPLACE),
        os.getxattr(d / "f", "user.x"),
        attempt(os.setxattr, d / "f", "user.x", b"5", 64),
    )


def _xattr_calls():
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)

    def asked(function: str, *args: object) -> object:
        found = getattr(libc, function)(*args)
        return found if found >= 0 else os.strerror(ctypes.get_errno())

    return asked, ctypes.create_string_buffer(1000)


@case
def xattr_sizes_are_asked_for(d: Path):
    asked, buffer = _xattr_calls()
    path = os.fsencode(make(d / "f"))
    os.setxattr(path, b"user.x", b"v" * 100)
    os.setxattr(path, b"user.empty", b"")
    return [
        [asked("getxattr", path, b"user.x", buffer, size) for size in (0, 1, 99, 100, 1000)],
        [asked("getxattr", path, b"user.empty", buffer, size) for size in (0, 1)],
        [asked("listxattr", path, buffer, size) for size in (0, 1, 8, 18, 19, 1000)],
    ]


@case
def xattr_of_every_size(d: Path):
    make(d / "f")
    seen = []
    for size in (0, 1, 100, 1000, 3000, 4000, 65536, 65537):
        done = attempt(os.setxattr, d / "f", "user.x", b"v" * size)
        seen.append((size, done, len(attempt(os.getxattr, d / "f", "user.x"))))
    return seen


@case
def many_xattrs(d: Path):
    make(d / "f")
    done = [attempt(os.setxattr, d / "f", f"user.number{n}", b"%d" % n) for n in range(60)]
    return done, sorted(os.listxattr(d / "f")), os.getxattr(d / "f", "user.number7")


@case
def xattr_removed(d: Path):
    make(d / "f")
    os.setxattr(d / "f", "user.x", b"1")
    os.removexattr(d / "f", "user.x")
    return (
        attempt(os.removexattr, d / "f", "user.x"),
        attempt(os.getxattr, d / "f", "user.x"),
        os.listxattr(d / "f"),
    )


@case
def xattr_of_impossible_names_and_sizes(d: Path):
    make(d / "f")
    return (
        attempt(os.setxattr, d / "f", "nonsense.x", b"1"),
        attempt(os.setxattr, d / "f", "user." + "n" * 251, b"1"),
        attempt(os.setxattr, d / "f", "user." + "n" * 250, b"1"),
        attempt(os.setxattr, d / "f", "user.big", bytes(65537)),
        attempt(os.setxattr, d / "f", "user.", b"1"),
    )


@case
def xattr_of_a_symlink(d: Path):
    make(d / "f")
    os.symlink("f", d / "l")
    os.setxattr(d / "l", "user.through", b"1")
    os.setxattr(d / "l", "trusted.link", b"2", follow_symlinks=False)
    return (
        attempt(os.setxattr, d / "l", "user.x", b"1", follow_symlinks=False),
        os.listxattr(d / "f"),
        os.listxattr(d / "l", follow_symlinks=False),
        os.getxattr(d / "l", "trusted.link", follow_symlinks=False),
    )


@case
def xattr_of_special_files(d: Path):
    os.mkfifo(d / "p")
    return attempt(os.setxattr, d / "p", "user.x", b"1"), attempt(
        os.setxattr, d / "p", "trusted.x", b"1"
    )


@case
def xattr_by_descriptor_after_unlink(d: Path):
    make(d / "f")

    def use(fd: int):
        os.setxattr(fd, "user.x", b"1")
        os.unlink(d / "f")
        os.setxattr(fd, "user.y", b"2")
        return sorted(os.listxattr(fd)), os.getxattr(fd, "user.y")

    return opened(d / "f", os.O_RDWR, use)


@case
def capabilities_go_when_a_file_is_written(d: Path):
    make(d / "f", b"program")
    value = bytes.fromhex("0100000200040000000000000000000000000000")
    set_it = attempt(os.setxattr, d / "f", "security.capability", value)
    opened(d / "f", os.O_WRONLY, lambda fd: os.write(fd, b"P"))
    return set_it, attempt(os.getxattr, d / "f", "security.capability")


# -- lists of access rights -------------------------------------------------------------------


def _acl(*entries: tuple[int, int, int]) -> bytes:
    import struct

    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


NOBODY_ID = 0xFFFFFFFF
USER_OBJ, USER, GROUP_OBJ, MASK, OTHER = 1, 2, 4, 16, 32


@case
def acl_is_kept(d: Path):
    make(d / "f")
    value = _acl(
        (USER_OBJ, 6, NOBODY_ID),
        (USER, 4, 1234),
        (GROUP_OBJ, 0, NOBODY_ID),
        (MASK, 6, NOBODY_ID),
        (OTHER, 0, NOBODY_ID),
    )
    os.setxattr(d / "f", "system.posix_acl_access", value)
    return os.getxattr(d / "f", "system.posix_acl_access") == value, look(d / "f")["mode"]


def _list(user: int, mask: int) -> bytes:
    return _acl(
        (USER_OBJ, 6, NOBODY_ID),
        (USER, user, 1234),
        (GROUP_OBJ, 4, NOBODY_ID),
        (MASK, mask, NOBODY_ID),
        (OTHER, 0, NOBODY_ID),
    )


def _access(path: Path) -> object:
    return attempt(os.getxattr, path, "system.posix_acl_access"), look(path)["mode"]


@case
def acl_and_mode_follow_each_other(d: Path):
    make(d / "f")
    seen = []
    for user, mask in ((6, 6), (7, 4), (0, 0), (6, 2)):
        os.setxattr(d / "f", "system.posix_acl_access", _list(user, mask))
        seen.append(_access(d / "f"))
        os.chmod(d / "f", 0o751)
        seen.append(_access(d / "f"))
    return seen


@case
def acl_that_says_no_more_than_the_mode_is_none(d: Path):
    make(d / "f")
    value = _acl((USER_OBJ, 7, NOBODY_ID), (GROUP_OBJ, 5, NOBODY_ID), (OTHER, 1, NOBODY_ID))
    os.setxattr(d / "f", "system.posix_acl_access", value)
    return _access(d / "f"), os.listxattr(d / "f")


@case
def acl_removed(d: Path):
    make(d / "f")
    os.mkdir(d / "sub")
    os.setxattr(d / "f", "system.posix_acl_access", _list(7, 7))
    os.setxattr(d / "sub", "system.posix_acl_default", _list(7, 7))
    return (
        attempt(os.removexattr, d / "f", "system.posix_acl_access"),
        attempt(os.removexattr, d / "sub", "system.posix_acl_default"),
        attempt(os.removexattr, d / "f", "system.posix_acl_default"),
        _access(d / "f"),
        os.listxattr(d / "sub"),
    )


@case
def acl_that_is_none(d: Path):
    make(d / "f")
    os.mkdir(d / "sub")
    broken = (
        b"",
        b"nonsense",
        _acl((USER_OBJ, 6, NOBODY_ID)),
        _acl((OTHER, 6, NOBODY_ID), (USER_OBJ, 6, NOBODY_ID)),
        _list(9, 4),
    )
    return [
        attempt(os.setxattr, d / name, f"system.posix_acl_{kind}", value)
        for value in broken
        for name in ("f", "sub")
        for kind in ("access", "default")
    ], [_access(d / "f"), _access(d / "sub")]


@case
def default_acl_of_a_file(d: Path):
    make(d / "f")
    return attempt(os.setxattr, d / "f", "system.posix_acl_default", _list(7, 7))


@case
def acl_of_a_link(d: Path):
    os.symlink("f", d / "l")
    return attempt(
        os.setxattr, d / "l", "system.posix_acl_access", _list(7, 7), follow_symlinks=False
    )
