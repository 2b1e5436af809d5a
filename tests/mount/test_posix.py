"""A mount does what the directory behind it does: the same programs, run in both, see the same."""

import errno
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from as_root import public_directory, tmpfs_at
from mounting import mounted
from posix_cases import (
    attributes,
    calls,
    descriptors,
    files,
    kinds,
    names,
    renames,
    rights,
    stamps,
    users,
)
from posix_cases.runner import ALICE, CASES, Case, as_user, attempt
from sources import SOURCES, plain

pytestmark = pytest.mark.root

# Importing them fills the list.
MODULES = (names, files, attributes, users, calls, renames, rights, stamps, descriptors)
SAME = [case for case in CASES if not case.reason]
OTHER = [case for case in CASES if case.reason]


# What other sources do not do themselves, or do in their own way, so that nothing can be compared:
# patterns of names of cases, and why.
_ONE_LINK = "each link is an inode of its own to it"
_NO_MODES = "it lets everybody do what its server may; the mount goes by the modes of the files"
_ITS_WAY = "it refuses, or does it in a way of its own"
_KERNELS = "the kernel keeps the file's size and times, and reads what is around a write"
OWN_WAYS = {
    "writeback": {
        "times_that_(write|append|truncate)_.*|truncate_to_the_same_size_.*|appending": _KERNELS,
        "file_without_a_name|file_of_a_user_that_may_not_be_written.*": "blocks come later",
    },
    "cache=none": {".*mapping.*|.*mapped.*|.*on_every_descriptor": "files cannot be mapped"},
    "cache=always": {"times_that_write_through_a_mapping.*": "its access time is not asked for"},
    "overlay": {
        "lseek_to_data_at_the_end_on_every_descriptor|times_that_chmod_through_a_link.*": _ITS_WAY,
        "read_without_waiting|fallocate_that_moves_bytes": "it cannot either",
    },
    "bindfs": {
        "link_.*|times_that_.*link.*|times_that_rename_to_its_other_name.*": _ONE_LINK,
        "acl_grants_and_withholds|which_attributes_are_listed.*": "it checks by the mode alone",
        "fallocate_.*|file_size_limit|file_without_a_name.*|mapped_writes_.*appends": _ITS_WAY,
        "create_in_a_removed_.*|removed_directory_.*|unlinked_file_goes_on_.*": _ITS_WAY,
        "read_without_waiting|flags_of_an_inode|seek_to_holes_.*": "it cannot either",
    },
    "sshfs": {
        ".*_in_a_(sticky_)?directory.*|.*_and_set_id_bits|.*_as_a_user": _NO_MODES,
        ".*_sticky_directory.*|link_": _NO_MODES,
        "directory_that_may_.*|.*_modes_for_.*|what_(a_user|the_owner|only).*|.*of_a_user.*": (
            _NO_MODES
        ),
        "(where|group|set_group|set_gid|link_to_a_file_of).*|opening_to_truncate.*": _NO_MODES,
        "sticky_directory.*": _NO_MODES,
        "fallocate_.*|file_size_limit|mapped_writes_.*appends|unlinked_file_goes_on_.*": _ITS_WAY,
        "listing_has_the_inode_.*|rewound_listing_.*": "its listings are 20 seconds old",
        "read_without_waiting|flags_of_an_inode|seek_to_holes_.*": "it cannot either",
    },
}


MODES = ("writeback", "cache=none", "cache=always")


class Places(NamedTuple):
    """A bare directory, and a mount of another one on the same filesystem: of a kind, in a mode."""

    bare: Path
    mount: Path
    kind: str

    def skip_if_own(self, name: str) -> None:
        """Leave a case out that cannot be compared."""
        for pattern, why in OWN_WAYS.get(self.kind, {}).items():
            if re.fullmatch(pattern, name):
                pytest.skip(f"{self.kind}: {why}")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(kind, marks=() if kind == "plain" else pytest.mark.thorough)
        for kind in (*MODES, "plain", "ext4", "overlay", "bindfs", "sshfs")
    ],
)
def places(request: pytest.FixtureRequest) -> Iterator[Places]:
    kind = request.param
    options = ",".join(("dev,suid", *([kind] if kind in MODES else ())))
    with public_directory() as top, SOURCES.get(kind, plain)(top) as source:
        for name in ("bare", "source"):
            (source.path / name).mkdir()
            (source.path / name).chmod(0o755)
        words = ("--budget=16M", "-o", options)
        with mounted(source.path / "source", top / "mount", *words) as mount:
            yield Places(source.path / "bare", mount.path, kind)


class Refused(str):
    """The error that ended a case."""


def _seen(case: Case, place: Path) -> object:
    """What the case returns, or that the source refuses a part of it (attributes over sftp)."""
    directory = place / case.name
    directory.mkdir()
    try:
        return case.run(directory)
    except OSError as error:
        return Refused(errno.errorcode[error.errno or 0])
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.parametrize("case", SAME, ids=lambda case: case.name)
def test_the_same_is_seen(case: Case, places: Places) -> None:
    places.skip_if_own(case.name)
    native = _seen(case, places.bare)
    assert _seen(case, places.mount) == native
    assert not isinstance(native, Refused) or places.kind != "plain", native


@pytest.mark.parametrize("case", OTHER, ids=lambda case: case.name)
def test_a_known_difference_is_as_it_is_known(case: Case, places: Places) -> None:
    places.skip_if_own(case.name)
    assert _seen(case, places.mount) == case.on_mount
    assert _seen(case, places.bare) != case.on_mount


def test_appending_on_both_sides_loses_nothing(places: Places) -> None:
    """The kernel knows the end of the file as it was a moment ago; a log may have grown since."""
    places.skip_if_own("appending")
    mount, behind = places.mount, places.bare.parent / "source"
    want = []
    with (
        open(mount / "log", "ab", buffering=0) as ours,
        open(behind / "log", "ab", buffering=0) as theirs,
    ):
        for number in range(50):
            for who, file in (("mount", ours), ("behind", theirs), ("behind", theirs)):
                want.append(f"{who} {number} ".encode() * (number * 37 % 150 + 1) + b"\n")
                file.write(want[-1])
            if number % 10 == 0:  # whoever looks makes the kernel look, too
                assert (mount / "log").read_bytes() == b"".join(want)
    assert (behind / "log").read_bytes() == b"".join(want)
    with open(mount / "log", "ab", buffering=0) as ours:
        ours.write(b"the end")
    assert (behind / "log").read_bytes() == b"".join(want) + b"the end"


def test_a_filesystem_without_access_control_lists() -> None:
    """There the mode alone decides, for others than the owner too."""

    def tries(place: Path) -> list[object]:
        return [
            attempt((place / "open").read_text),
            attempt((place / "closed").read_text),
            attempt(os.listdir, place / "sub"),
            attempt(os.getxattr, place / "open", "user.none"),
        ]

    with public_directory() as place:
        (place / "source").mkdir()
        subprocess.run(["mount", "-t", "ramfs", "ramfs", place / "source"], check=True)
        try:
            (place / "source").chmod(0o755)
            for name, mode in (("open", 0o644), ("closed", 0o640)):
                (place / "source" / name).write_text(name)
                (place / "source" / name).chmod(mode)
            (place / "source" / "sub").mkdir(0o755)
            with mounted(place / "source", place / "mount", "--budget=8M") as mount:
                seen = as_user(ALICE, lambda: tries(mount.path))
                assert seen == as_user(ALICE, lambda: tries(place / "source"))
                assert seen[:3] == ["open", "EACCES", []]
        finally:
            subprocess.run(["umount", "--lazy", place / "source"], check=True)


def test_every_call_on_a_filesystem_that_may_only_be_read() -> None:
    """EROFS, or what comes before it: on a mount of it as on the filesystem itself."""

    def tries(place: Path) -> dict[str, list[object]]:
        return {
            name: [
                calls.seen_of(call, place / f"at-{number}" / path.name)
                for number, path in enumerate(paths)
            ]
            for name, call in calls.CALLS.items()
        }

    with public_directory() as place, tmpfs_at(place / "source") as source:
        source.chmod(0o755)
        paths = [kinds.build(kind, source / f"at-{n}") for n, kind in enumerate(kinds.KINDS)]
        for path in paths:
            for name in ("mine", "new"):  # what some of the calls have beside the path
                (path.parent / name).touch()
        subprocess.run(["mount", "-o", "remount,ro", source], check=True)
        with mounted(source, place / "mount", "--budget=8M", "-o", "ro,dev") as mount:
            for uid in (0, ALICE):
                seen = as_user(uid, lambda: tries(mount.path))
                assert seen == as_user(uid, lambda: tries(source))
                assert "EROFS" in seen["mkdir"]


def test_as_many_links_as_the_filesystem_allows(places: Places) -> None:
    """Most of them are made behind the mount, because there are many."""
    places.skip_if_own("link_")
    mount, behind = places.mount / "many", places.bare.parent / "source" / "many"
    behind.mkdir()
    (behind / "file").touch()
    made = 1
    while made < 70_000 and attempt(os.link, behind / "file", behind / str(made)) is None:
        made += 1
    for number in (1, 2):
        os.unlink(mount / str(number))
    tries = [attempt(os.link, mount / "file", mount / f"again {number}") for number in range(3)]
    assert tries == [None, None, "EMLINK" if made < 70_000 else None]
    assert os.stat(mount / "file").st_nlink == os.stat(behind / "file").st_nlink
    shutil.rmtree(behind)


def test_there_are_enough_of_them() -> None:
    assert len(CASES) > 450
    assert len({case.name for case in CASES}) == len(CASES)
