"""Tables of who may do what: modes by caller, sticky directories, set-ID bits."""

import itertools
import os
import stat
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from posix_cases.attributes import GROUP_OBJ, NOBODY_ID, OTHER, USER_OBJ, _acl
from posix_cases.calls import opens
from posix_cases.runner import (
    ALICE,
    BOB,
    CASES,
    STAFF,
    Case,
    as_user,
    attempt,
    case,
    look,
    make,
)

from tmemfs.linux.syscalls import fallocate

Call = Callable[[Path], Any]

CALLERS: dict[str, tuple[int, tuple[int, ...]]] = {
    "root": (0, ()),
    "owner": (ALICE, ()),
    "group": (BOB, (STAFF,)),
    "others": (BOB, ()),
}
"""callers of a thing that belongs to ALICE and to STAFF: user, further groups"""
PLACES = {"owner": 6, "group": 3, "others": 0}  # of their bits in a mode


def handed_over(path: Path, mode: int, uid: int = ALICE, gid: int = STAFF) -> Path:
    os.chown(path, uid, gid)
    os.chmod(path, mode)
    return path


def as_caller(who: str, call: Call, paths: list[Path]) -> list[Any]:
    """What each of the calls sees."""
    uid, groups = CALLERS[who]
    return as_user(uid, lambda: [attempt(call, path) for path in paths], *groups)


# -- what each triple of bits allows -----------------------------------------------------------

ON_A_FILE: dict[str, Call] = {
    "read": Path.read_bytes,
    "write": opens(os.O_WRONLY),
    "read_and_write": opens(os.O_RDWR),
    "truncate_when_opening": opens(os.O_WRONLY | os.O_TRUNC),
    "truncate": lambda path: os.truncate(path, 1),
    "run": lambda path: os.access(path, os.X_OK) and "may",
    "set_times_to_now": os.utime,
    "set_times": lambda path: os.utime(path, (1, 1)),
    "read_attribute": lambda path: os.getxattr(path, "user.known"),
    "set_attribute": lambda path: os.setxattr(path, "user.new", b"1"),
    "stat": lambda path: os.stat(path).st_size,
}

IN_A_DIRECTORY: dict[str, Call] = {
    "list": lambda d: sorted(os.listdir(d)),
    "look_up": lambda d: os.stat(d / "f").st_size,
    "look_up_what_is_not_there": lambda d: os.stat(d / "none"),
    "read": lambda d: (d / "f").read_bytes(),
    "create": lambda d: os.close(os.open(d / "new", os.O_CREAT | os.O_WRONLY)),
    "open_or_create_what_is_there": lambda d: os.close(os.open(d / "f", os.O_CREAT | os.O_WRONLY)),
    "mkdir": lambda d: os.mkdir(d / "sub"),
    "symlink": lambda d: os.symlink("f", d / "l"),
    "link": lambda d: os.link(d / "f", d / "g"),
    "mkfifo": lambda d: os.mkfifo(d / "p"),
    "rename": lambda d: os.rename(d / "f", d / "moved"),
    "rename_into_another": lambda d: os.rename(d / "f", d.parent / "free" / "f"),
    "unlink": lambda d: os.unlink(d.parent / d.name / "f"),
    "rmdir": lambda d: os.rmdir(d / "empty"),
    "enter": lambda d: os.close(os.open(d / ".", os.O_PATH)),
}


def by_mode(call: Call, prepare: Call) -> Callable[[Path], Any]:
    """The case of one call: with each triple of bits, for the caller of whom it speaks."""

    def run(d: Path) -> Any:
        os.chmod(d, 0o777)
        seen = {}
        for who, place in PLACES.items():
            paths = [prepare(d / f"{who}{bits}") for bits in range(8)]
            for bits, path in enumerate(paths):
                # All the others may do the opposite, so that no other triple is taken for it.
                triples = ((bits if place == other else 7 - bits) << other for other in (0, 3, 6))
                handed_over(path, sum(triples))
            seen[who] = as_caller(who, call, paths)
        return seen, {path.name: look(path) for path in sorted(d.iterdir())}

    return run


def _known(path: Path) -> Path:
    make(path, b"content")
    os.setxattr(path, "user.known", b"value")
    return path


def _with_file(path: Path) -> Path:
    path.mkdir()
    handed_over(make(path / "f", b"content"), 0o666)
    (path / "empty").mkdir()
    free = path.parent / "free"
    free.mkdir(exist_ok=True)
    free.chmod(0o777)
    return path


# -- sticky directories ------------------------------------------------------------------------

REMOVALS: dict[str, Call] = {
    "unlink": lambda d: os.unlink(d / "f"),
    "rmdir": lambda d: os.rmdir(d / "sub"),
    "rename_away": lambda d: os.rename(d / "f", d / "g"),
    "rename_a_directory_away": lambda d: os.rename(d / "sub", d / "bus"),
    "rename_out": lambda d: os.rename(d / "f", d.parent / f"{d.name} f"),
    "rename_over": lambda d: os.rename(make(d / "mine"), d / "f"),
}


def sticky(call: Call) -> Callable[[Path], Any]:
    """The case of one removal: whoever the directory and what is in it belong to."""

    def run(d: Path) -> Any:
        os.chmod(d, 0o777)
        places = []
        for mode, owner, theirs in itertools.product((0o777, 0o1777), (ALICE, BOB, 0), (ALICE, 0)):
            place = d / f"{mode:o} {owner} {theirs}"
            place.mkdir()
            (place / "sub").mkdir()
            for path in (make(place / "f"), place / "sub", place):
                handed_over(path, mode, owner if path == place else theirs)
            places.append(place)
        done = as_caller("owner", call, places)
        return [
            (place.name, done, sorted(os.listdir(place)))
            for place, done in zip(places, done, strict=True)
        ]

    return run


# -- set-ID bits -------------------------------------------------------------------------------


def _open(path: Path, use: Callable[[int], Any]) -> Any:
    fd = os.open(path, os.O_RDWR)
    try:
        return use(fd)
    finally:
        os.close(fd)


CHANGES: dict[str, Call] = {
    "write": lambda path: _open(path, lambda fd: os.write(fd, b"X")),
    "write_of_nothing": lambda path: _open(path, lambda fd: os.write(fd, b"")),
    "append": lambda path: _open(path, lambda fd: os.pwrite(fd, b"X", 100)),
    "truncate": lambda path: os.truncate(path, 3),
    "truncate_to_the_same_size": lambda path: os.truncate(path, 7),
    "ftruncate": lambda path: _open(path, lambda fd: os.ftruncate(fd, 3)),
    "fallocate": lambda path: _open(path, lambda fd: fallocate(fd, 0, 0, 100)),
    "utime": os.utime,
    "link": lambda path: os.link(path, f"{path} linked"),
    "rename": lambda path: (os.rename(path, f"{path} moved"), os.rename(f"{path} moved", path)),
    "chown_nothing": lambda path: os.chown(path, -1, -1),
    "chown_group": lambda path: os.chown(path, -1, STAFF),
    "chown_to_the_same": lambda path: os.chown(path, ALICE, STAFF),
    "chmod_set_uid": lambda path: os.chmod(path, 0o4755),
    "chmod_set_gid": lambda path: os.chmod(path, 0o2755),
    "chmod_set_gid_without_group_execution": lambda path: os.chmod(path, 0o2745),
    "chmod_sticky": lambda path: os.chmod(path, 0o1755),
    "setxattr": lambda path: os.setxattr(path, "user.x", b"1"),
    "read": Path.read_bytes,
}
MODES = (0o4777, 0o2777, 0o6777, 0o1777)


def set_id(call: Call) -> Callable[[Path], Any]:
    """The case of one change: what is left of the bits, by who it was that changed the file."""

    def run(d: Path) -> Any:
        os.chmod(d, 0o777)
        seen = {}
        for who in CALLERS:
            paths = [handed_over(make(d / f"{who} {m:o}", b"program"), m) for m in MODES]
            done = as_caller(who, call, paths)
            seen[who] = [(done, look(path)) for done, path in zip(done, paths, strict=True)]
        return seen

    return run


CASES += [
    *(Case(f"{name}_by_mode", by_mode(call, _known)) for name, call in ON_A_FILE.items()),
    *(
        Case(f"{name}_in_a_directory_by_mode", by_mode(call, _with_file))
        for name, call in IN_A_DIRECTORY.items()
    ),
    *(Case(f"{name}_in_a_sticky_directory", sticky(call)) for name, call in REMOVALS.items()),
    *(Case(f"{name}_and_set_id_bits", set_id(call)) for name, call in CHANGES.items()),
]


@case
def set_gid_bit_without_group_execution(d: Path):
    seen = []
    for name in ("write", "truncate", "fallocate", "chown_nothing"):
        path = handed_over(make(d / name, b"program"), 0o2767)
        as_caller("owner", CHANGES[name], [path])
        seen.append((name, oct(os.stat(path).st_mode)))
    return seen


@case
def programs_take_the_set_id_bits(d: Path):
    import shutil
    import subprocess

    shutil.copy("/usr/bin/id", d / "id")
    os.chmod(d, 0o755)
    seen = []
    for mode in (0o755, 0o4755, 0o2755, 0o6755, 0o2745):
        handed_over(d / "id", mode)
        run = [d / "id", "-u"], [d / "id", "-g"]
        seen.append(as_user(BOB, lambda run=run: [subprocess.check_output(words) for words in run]))
    return seen


@case
def made_in_a_set_gid_directory_by_somebody_else(d: Path):
    handed_over(d, 0o2777)
    seen = []
    for number, (uid, groups) in enumerate(CALLERS.values()):

        def makes(number: int = number) -> list[Any]:
            os.mkdir(d / f"d{number}")
            os.mknod(d / f"n{number}", stat.S_IFREG | 0o2775)
            os.symlink("x", d / f"l{number}")
            return [look(d / f"{kind}{number}") for kind in "dnl"]

        seen.append(as_user(uid, makes, *groups, umask=0))
    return seen


@case
def a_list_that_is_the_mode_clears_the_set_group_bit(d: Path):
    """Set by an owner who is not in the file's group."""
    path = handed_over(make(d / "f", b"program"), 0o2755)
    value = _acl((USER_OBJ, 7, NOBODY_ID), (GROUP_OBJ, 7, NOBODY_ID), (OTHER, 7, NOBODY_ID))
    seen = as_user(ALICE, lambda: attempt(os.setxattr, path, "system.posix_acl_access", value))
    return seen, look(path)["mode"]


def _write_one(path: Path) -> None:
    with open(path, "ab", buffering=0) as file:
        file.write(b"x")


def _allocate(path: Path) -> None:
    with open(path, "r+b") as file:
        os.posix_fallocate(file.fileno(), 0, 100)


CAPABILITIES = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)  # net_raw, of version 2


@case
def what_ends_the_capabilities_of_a_file(d: Path):
    changes: dict[str, Callable[[Path], object]] = {
        "write": _write_one,
        "truncate": lambda path: os.truncate(path, 3),
        "open": lambda path: os.close(os.open(path, os.O_WRONLY | os.O_TRUNC)),
        "allocate": _allocate,
        "chown": lambda path: os.chown(path, -1, -1),
        "chown to others": lambda path: os.chown(path, uid, -1),
        "chmod": lambda path: os.chmod(path, 0o711),
        "touch": os.utime,
        "remove": lambda path: os.removexattr(path, "security.capability"),
        "set": lambda path: os.setxattr(path, "security.capability", CAPABILITIES),
    }
    seen = []
    for uid, owner in ((0, 0), (ALICE, ALICE), (BOB, ALICE)):
        for name, change in changes.items():
            path = make(d / f"{name} {uid}", b"a program")
            os.chown(path, owner, owner)
            os.chmod(path, 0o777)
            os.setxattr(path, "security.capability", CAPABILITIES)
            done = as_user(uid, lambda change=change, path=path: attempt(change, path))
            seen.append((name, uid, done, "security.capability" in os.listxattr(path)))
    return seen


@case
def capabilities_of_a_file_in_a_user_namespace(d: Path):
    """Whoever is root there may set them, and they count there only."""
    d.chmod(0o777)
    program = (
        "import os, sys\n"
        "os.close(os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY, 0o755))\n"
        f"os.setxattr(sys.argv[1], 'security.capability', {CAPABILITIES!r})\n"
    )
    path = d / "f"

    def run() -> int:
        words = ["unshare", "--user", "--map-root-user", "/usr/bin/env", "python3", "-c", program]
        return subprocess.run([*words, path], check=False).returncode

    return as_user(ALICE, run), attempt(os.getxattr, path, "security.capability")


@case
def which_attributes_are_listed_for_whom(d: Path):
    path = handed_over(make(d / "f"), 0o666)
    os.setxattr(path, "trusted.secret", b"1")
    os.setxattr(path, "user.open", b"1")
    return {
        uid: as_user(
            uid, lambda: (sorted(os.listxattr(path)), attempt(os.getxattr, path, "trusted.secret"))
        )
        for uid in (0, ALICE, BOB)
    }


@case
def where_only_a_further_group_may_write(d: Path):
    place = d / "place"
    place.mkdir()
    handed_over(place, 0o770, uid=0)
    other = make(d / "other")
    handed_over(other, 0o664, uid=0)

    def work():
        made = [attempt(_touch_new, place / "f"), attempt(os.mkdir, place / "sub")]
        moved = attempt(os.rename, place / "f", place / "g")
        linked = attempt(os.link, place / "g", place / "h")
        gone = attempt(os.unlink, place / "h"), attempt(os.rmdir, place / "sub")
        written = attempt(other.write_bytes, b"of a member")
        return made, moved, linked, gone, written, attempt(os.utime, other)

    return {
        who: as_user(BOB, work, *groups)
        for who, groups in (("no member", ()), ("member", (STAFF,)))
    }


def _touch_new(path: Path) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640))


@case
def set_group_directories_and_who_is_in_the_group(d: Path):
    handed_over(d, 0o3777, uid=0)

    def work():
        os.mkdir(d / "sub")
        fd = os.open(d / "f", os.O_CREAT | os.O_WRONLY, 0o2771)
        os.close(fd)
        seen = look(d / "sub"), look(d / "f")
        os.rmdir(d / "sub")
        os.unlink(d / "f")
        return seen

    return [as_user(uid, work, *groups, umask=0) for uid, groups in CALLERS.values()]
