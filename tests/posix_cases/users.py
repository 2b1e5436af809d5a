"""What users who are not root may do, and whose the files are that they make."""

import os
import stat
from pathlib import Path

from posix_cases.attributes import GROUP_OBJ, MASK, NOBODY_ID, OTHER, USER, USER_OBJ, _acl
from posix_cases.runner import (
    ALICE,
    BOB,
    STAFF,
    as_user,
    attempt,
    case,
    look,
    make,
    opened,
)


def everything(d: Path) -> list[dict]:
    """One of each kind, made by the caller."""
    make(d / "f", b"x")
    os.mkdir(d / "sub")
    os.symlink("f", d / "l")
    os.mkfifo(d / "p")
    os.mknod(d / "n", stat.S_IFREG | 0o640)
    opened(d / "x", os.O_CREAT | os.O_EXCL | os.O_RDWR, lambda fd: os.fchmod(fd, 0o600))
    return [look(d / name) for name in ("f", "sub", "l", "p", "n", "x")]


@case
def what_a_user_makes_is_theirs(d: Path):
    os.chmod(d, 0o777)
    return as_user(ALICE, lambda: everything(d))


@case
def umask_of_a_user(d: Path):
    os.chmod(d, 0o777)
    return as_user(ALICE, lambda: everything(d), umask=0o077)


@case
def set_gid_directory_gives_its_group(d: Path):
    os.chown(d, 0, STAFF)
    os.chmod(d, 0o2777)
    return as_user(ALICE, lambda: everything(d)), as_user(
        BOB, lambda: os.mkdir(d / "other") or look(d / "other"), STAFF
    )


@case
def set_gid_directory_of_root(d: Path):
    os.chown(d, ALICE, STAFF)
    os.chmod(d, 0o2755)
    return everything(d)


@case
def mode_with_set_id_bits_at_creation(d: Path):
    os.chmod(d, 0o777)

    def create():
        for mode in (0o4755, 0o2755, 0o6755, 0o1755):
            opened(d / oct(mode), os.O_CREAT | os.O_WRONLY, lambda fd: None, mode)
            os.mkdir(d / f"d{mode:o}", mode)
        return {name: look(d / name) for name in sorted(os.listdir(d))}

    return as_user(ALICE, create, umask=0)


@case
def set_gid_bit_in_a_foreign_groups_directory(d: Path):
    os.chown(d, 0, STAFF)
    os.chmod(d, 0o2777)

    def create():
        opened(d / "f", os.O_CREAT | os.O_WRONLY, lambda fd: None, 0o2775)
        return look(d / "f")

    return as_user(ALICE, create, umask=0)


@case
def sticky_directory(d: Path):
    os.chmod(d, 0o1777)
    as_user(ALICE, lambda: everything(d))

    def others():
        return [
            attempt(os.unlink, d / "f"),
            attempt(os.rmdir, d / "sub"),
            attempt(os.rename, d / "f", d / "g"),
            attempt(os.rename, make(d / "mine"), d / "f"),
            attempt(os.unlink, d / "mine"),
        ]

    return as_user(BOB, others), as_user(ALICE, lambda: attempt(os.unlink, d / "f"))


@case
def sticky_directory_of_ones_own(d: Path):
    os.chown(d, BOB, BOB)
    os.chmod(d, 0o1777)
    as_user(ALICE, lambda: everything(d))
    return as_user(BOB, lambda: [attempt(os.unlink, d / "f"), attempt(os.rmdir, d / "sub")])


@case
def directory_that_may_not_be_written(d: Path):
    make(d / "f")

    def tries():
        return [
            attempt(os.open, d / "new", os.O_CREAT | os.O_WRONLY),
            attempt(os.mkdir, d / "new"),
            attempt(os.symlink, "x", d / "new"),
            attempt(os.mkfifo, d / "new"),
            attempt(os.link, d / "f", d / "new"),
            attempt(os.unlink, d / "f"),
            attempt(os.rename, d / "f", d / "new"),
        ]

    return as_user(ALICE, tries), os.listdir(d)


@case
def directory_that_may_not_be_searched(d: Path):
    os.mkdir(d / "closed", 0o700)
    make(d / "closed" / "f", b"secret")

    def tries():
        return [
            attempt(os.stat, d / "closed" / "f"),
            attempt(os.listdir, d / "closed"),
            attempt(os.open, d / "closed" / "f", os.O_RDONLY),
        ]

    return as_user(ALICE, tries)


@case
def directory_that_may_only_be_searched(d: Path):
    os.mkdir(d / "half", 0o711)
    make(d / "half" / "f", b"open")
    return as_user(
        ALICE, lambda: (attempt(os.listdir, d / "half"), (d / "half" / "f").read_bytes())
    )


@case
def file_modes_for_others_group_and_owner(d: Path):
    def tries(name: str):
        return [attempt(_touch, d / name, flags) for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR)]

    seen = []
    for mode in (0o600, 0o060, 0o006, 0o640, 0o604, 0o200, 0):
        name = oct(mode)
        make(d / name)
        os.chown(d / name, ALICE, STAFF)
        os.chmod(d / name, mode)
        for user, groups in ((ALICE, ()), (BOB, (STAFF,)), (BOB, ())):
            seen.append(as_user(user, lambda name=name: tries(name), *groups))
    return seen


def _touch(path: Path, flags: int) -> str:
    os.close(os.open(path, flags))
    return "ok"


@case
def access_as_a_user(d: Path):
    make(d / "f")
    os.chmod(d / "f", 0o754)
    return [
        as_user(user, lambda: [os.access(d / "f", mode) for mode in (4, 2, 1, 7)])
        for user in (ALICE, BOB)
    ]


@case
def what_only_the_owner_may_change(d: Path):
    make(d / "f", b"x")
    os.chmod(d / "f", 0o666)
    os.chown(d / "f", ALICE, ALICE)

    def tries():
        return [
            attempt(os.chmod, d / "f", 0o600),
            attempt(os.chown, d / "f", BOB, -1),
            attempt(os.utime, d / "f", (1, 1)),
            attempt(os.utime, d / "f"),
            attempt(os.setxattr, d / "f", "user.x", b"1"),
            attempt(os.setxattr, d / "f", "trusted.x", b"1"),
            attempt(os.setxattr, d / "f", "security.capability", bytes(20)),
            attempt(os.open, d / "f", os.O_RDONLY | os.O_NOATIME),
        ]

    return as_user(BOB, tries), look(d / "f")


@case
def what_the_owner_may_not_change(d: Path):
    make(d / "f")
    os.chown(d / "f", ALICE, ALICE)

    def tries():
        return [
            attempt(os.chown, d / "f", BOB, -1),
            attempt(os.chown, d / "f", -1, BOB),
            attempt(os.chown, d / "f", -1, STAFF),
            attempt(os.chown, d / "f", ALICE, ALICE),
            attempt(os.mknod, d / "dev", stat.S_IFCHR | 0o600, 5),
        ]

    os.chmod(d, 0o777)
    return as_user(ALICE, tries, STAFF), look(d / "f")


@case
def set_gid_bit_for_a_group_one_is_not_in(d: Path):
    make(d / "f")
    os.chown(d / "f", ALICE, BOB)
    return as_user(ALICE, lambda: (os.chmod(d / "f", 0o2755), look(d / "f")))


@case
def owners_chown_clears_the_set_id_bits(d: Path):
    make(d / "f")
    os.chown(d / "f", ALICE, ALICE)
    os.chmod(d / "f", 0o6755)
    return as_user(ALICE, lambda: (os.chown(d / "f", -1, STAFF), look(d / "f")), STAFF)


@case
def writing_clears_the_set_id_bits(d: Path):
    make(d / "f", b"program")
    os.chmod(d / "f", 0o6777)
    as_user(BOB, lambda: opened(d / "f", os.O_WRONLY, lambda fd: os.write(fd, b"P")))
    return look(d / "f")


@case
def truncating_clears_the_set_id_bits(d: Path):
    make(d / "f", b"program")
    os.chmod(d / "f", 0o6777)
    as_user(BOB, lambda: os.truncate(d / "f", 3))
    return look(d / "f")


@case
def opening_to_truncate_clears_the_set_id_bits(d: Path):
    make(d / "f", b"program")
    os.chmod(d / "f", 0o6777)

    def cut_and_write():
        with open(d / "f", "wb", buffering=0) as file:
            first = look(d / "f")["mode"]
            file.write(b"P")
        return first, look(d / "f")["mode"]

    return as_user(BOB, cut_and_write)


@case
def roots_writing_leaves_the_set_id_bits(d: Path):
    make(d / "f", b"program")
    os.chmod(d / "f", 0o6777)
    opened(d / "f", os.O_WRONLY, lambda fd: os.write(fd, b"P"))
    return look(d / "f")


@case
def file_of_a_user_that_may_not_be_written_by_them(d: Path):
    os.chmod(d, 0o777)

    def use():
        return opened(
            d / "f", os.O_CREAT | os.O_RDWR, lambda fd: (os.write(fd, b"xyz"), look(fd)), 0o400
        ), attempt(os.open, d / "f", os.O_WRONLY)

    return as_user(ALICE, use)


@case
def link_to_a_file_of_somebody_else(d: Path):
    os.chmod(d, 0o777)
    make(d / "f")
    os.chmod(d / "f", 0o600)
    return as_user(ALICE, lambda: attempt(os.link, d / "f", d / "g"))


@case
def group_that_is_only_a_second_one(d: Path):
    os.mkdir(d / "team")
    os.chown(d / "team", 0, STAFF)
    os.chmod(d / "team", 0o770)
    return (
        as_user(ALICE, lambda: everything(d / "team"), STAFF),
        as_user(BOB, lambda: attempt(os.listdir, d / "team")),
    )


@case
def acl_of_somebody_elses_file(d: Path):
    make(d / "f")
    value = _acl((USER_OBJ, 6, NOBODY_ID), (GROUP_OBJ, 6, NOBODY_ID), (OTHER, 6, NOBODY_ID))
    return (
        as_user(BOB, lambda: attempt(os.setxattr, d / "f", "system.posix_acl_access", value)),
        look(d / "f")["mode"],
    )


@case
def acl_grants_and_withholds(d: Path):
    make(d / "f", b"x")
    os.chown(d / "f", 0, STAFF)
    os.setxattr(
        d / "f",
        "system.posix_acl_access",
        _acl(
            (USER_OBJ, 6, NOBODY_ID),
            (USER, 4, ALICE),
            (GROUP_OBJ, 0, NOBODY_ID),
            (MASK, 6, NOBODY_ID),
            (OTHER, 0, NOBODY_ID),
        ),
    )
    return (
        as_user(ALICE, lambda: attempt(_touch, d / "f", os.O_RDONLY)),
        as_user(ALICE, lambda: attempt(_touch, d / "f", os.O_WRONLY)),
        as_user(BOB, lambda: attempt(_touch, d / "f", os.O_RDONLY), STAFF),
    )


@case
def acl_that_new_files_inherit(d: Path):
    os.mkdir(d / "sub")
    os.setxattr(
        d / "sub",
        "system.posix_acl_default",
        _acl(
            (USER_OBJ, 7, NOBODY_ID),
            (USER, 7, ALICE),
            (GROUP_OBJ, 5, NOBODY_ID),
            (MASK, 7, NOBODY_ID),
            (OTHER, 0, NOBODY_ID),
        ),
    )
    make(d / "sub" / "f")
    os.mkdir(d / "sub" / "s")
    return [
        (look(d / "sub" / name)["mode"], sorted(os.listxattr(d / "sub" / name))) for name in "fs"
    ]
