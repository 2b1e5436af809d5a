"""A mount does what the directory behind it does: the same programs, run in both, see the same."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

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
from sources import SOURCES

pytestmark = pytest.mark.root

# Importing them fills the list.
MODULES = (names, files, attributes, users, calls, renames, rights, stamps, descriptors)
SAME = [case for case in CASES if not case.reason]
OTHER = [case for case in CASES if case.reason]


@pytest.fixture(
    scope="module",
    params=[pytest.param(k, marks=() if k == "plain" else pytest.mark.thorough) for k in SOURCES],
)
def places(request: pytest.FixtureRequest) -> Iterator[tuple[Path, Path]]:
    """A bare directory, and a mount of another one on the same filesystem."""
    with public_directory() as top, SOURCES[request.param](top) as source:
        for name in ("bare", "source"):
            (source.path / name).mkdir()
            (source.path / name).chmod(0o755)
        options = ("--budget=16M", "-o", "dev,suid")
        with mounted(source.path / "source", top / "mount", *options) as mount:
            yield source.path / "bare", mount.path


def _seen(case: Case, place: Path) -> object:
    directory = place / case.name
    directory.mkdir()
    try:
        return case.run(directory)
    finally:
        shutil.rmtree(directory)


@pytest.mark.parametrize("case", SAME, ids=lambda case: case.name)
def test_the_same_is_seen(case: Case, places: tuple[Path, Path]) -> None:
    bare, mount = places
    assert _seen(case, mount) == _seen(case, bare)


@pytest.mark.parametrize("case", OTHER, ids=lambda case: case.name)
def test_a_known_difference_is_as_it_is_known(case: Case, places: tuple[Path, Path]) -> None:
    bare, mount = places
    assert _seen(case, mount) == case.on_mount
    assert _seen(case, bare) != case.on_mount


def test_appending_on_both_sides_loses_nothing(places: tuple[Path, Path]) -> None:
    """The kernel knows the end of the file as it was a moment ago; a log may have grown since."""
    mount = places[1]
    behind = mount.parent / "source"
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


def test_as_many_links_as_the_filesystem_allows(places: tuple[Path, Path]) -> None:
    """Most of them are made behind the mount, because there are many."""
    mount = places[1] / "many"
    behind = mount.parents[1] / "source" / "many"
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
