"""The table of mounts, deadlines, and taking a mount away."""

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from as_root import tmpfs_at

from tmemfs.linux import system
from tmemfs.linux.system import Mount, MountState

MOUNTINFO = b"""\
22 27 0:21 / /proc rw,relatime shared:5 - proc proc rw
36 27 98:0 /mnt1 /mnt/a\\040b\\134c rw,noatime master:1 unbindable - ext3 /dev/root rw,errors=x
42 36 0:39 / /mnt/a\\040b\\134c/t rw,nosuid - fuse.tmemfs /s\\012\xff rw,user_id=0
43 42 0:40 / /mnt/a\\040b\\134c/t ro - tmpfs  rw
"""


@pytest.fixture
def mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Mount]:
    table = tmp_path / "mountinfo"
    table.write_bytes(MOUNTINFO)
    mounts = system.read_mounts(str(table))
    monkeypatch.setattr(system, "read_mounts", lambda: mounts)
    return mounts


# --- the table of mounts ---------------------------------------------------------------------


def test_a_line_of_the_table(mounts: list[Mount]) -> None:
    assert mounts[1] == Mount(
        mount_id=36,
        parent_id=27,
        device=(98, 0),
        mountpoint="/mnt/a b\\c",
        options=frozenset({"rw", "noatime"}),
        fstype="ext3",
        source="/dev/root",
        super_options=frozenset({"rw", "errors=x"}),
    )


def test_names_that_are_no_utf8_and_sources_that_are_empty(mounts: list[Mount]) -> None:
    assert mounts[2].source == "/s\n\udcff"
    assert mounts[3].source == ""


def test_the_topmost_mount_counts(mounts: list[Mount]) -> None:
    assert system.mount_at("/mnt/a b\\c/t") == mounts[3]
    assert system.mount_at("/mnt/a b\\c") == mounts[1]
    assert system.mount_at("/mnt") is None


def test_mounts_of_tmemfs_are_found_also_under_others(mounts: list[Mount]) -> None:
    assert system.tmemfs_mounts() == [mounts[2]]


def test_the_real_table_knows_the_root() -> None:
    root = system.mount_at("/")
    assert root is not None
    device = os.stat("/").st_dev
    assert root.device == (os.major(device), os.minor(device))


# --- paths -----------------------------------------------------------------------------------


def test_a_path_is_made_absolute_and_free_of_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real" / "sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real/sub")
    monkeypatch.chdir(tmp_path)
    sub = str(tmp_path / "real" / "sub")
    for path in ("link", "link/", "./link", "real/sub", "real/sub/.", "link/../sub", "real//sub/"):
        assert system.canonical_path(path) == sub
    assert system.canonical_path("real/new") == str(tmp_path / "real" / "new")
    assert system.canonical_path(".") == str(tmp_path)
    assert system.canonical_path("/") == "/"


def test_a_mount_is_not_looked_at_to_find_its_path(
    mounts: list[Mount], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[str] = []
    real = os.lstat

    def lstat(path: str, **kwargs: int) -> os.stat_result:
        looked_at.append(os.fspath(path))
        return real(path, **kwargs)

    monkeypatch.setattr(os, "lstat", lstat)
    assert system.canonical_path("/mnt/a b\\c/t") == "/mnt/a b\\c/t"
    assert looked_at, "the parents were looked at"
    assert "/mnt/a b\\c/t" not in looked_at


# --- deadlines -------------------------------------------------------------------------------


def test_a_call_in_time_gives_its_result_and_leaves_no_thread() -> None:
    before = threading.active_count()
    assert system.within(60, lambda: 42) == 42
    assert threading.active_count() == before


def test_a_call_in_time_raises_its_own_error() -> None:
    with pytest.raises(FileNotFoundError, match="nothing-here"):
        system.within(60, lambda: os.stat("/nothing-here"))


def test_a_call_that_does_not_return_is_left_behind() -> None:
    release = threading.Event()
    try:
        with pytest.raises(TimeoutError, match=r"no answer within 0\.01 seconds"):
            system.within(0.01, release.wait)
    finally:
        release.set()


def test_a_call_that_is_late_can_be_waited_for_again() -> None:
    release = threading.Event()
    call = system.Call(lambda: release.wait() and 42)
    try:
        for _ in range(2):
            with pytest.raises(TimeoutError):
                call.result(0.01)
            assert call.under_way
    finally:
        release.set()
    assert call.result(60) == 42
    assert not call.under_way


@pytest.mark.parametrize(
    ("code", "state"),
    [
        (errno.ENOTCONN, MountState.STALE),
        (errno.ECONNABORTED, MountState.STALE),
        (errno.EACCES, MountState.ALIVE),
    ],
)
def test_what_a_mount_answers_tells_its_state(
    code: int, state: MountState, monkeypatch: pytest.MonkeyPatch
) -> None:
    def statvfs(_path: str) -> os.statvfs_result:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "statvfs", statvfs)
    assert system.probe("/mnt") is state


def test_a_mount_that_answers_is_alive(tmp_path: Path) -> None:
    assert system.probe(str(tmp_path)) is MountState.ALIVE


def test_a_mount_that_does_not_answer_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(os, "statvfs", lambda _path: release.wait())
    monkeypatch.setattr(system, "ANSWER_SECONDS", 0.01)
    try:
        assert system.probe("/mnt") is MountState.SILENT
    finally:
        release.set()


def test_a_mountpoint_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        system.probe(str(tmp_path / "none"))


# --- unmounting ------------------------------------------------------------------------------


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    with tmpfs_at(tmp_path / "tmpfs") as place:
        yield place


@pytest.mark.root
def test_a_mount_in_use_is_taken_away_only_lazily(tmpfs: Path) -> None:
    with open(tmpfs / "file", "w"):
        with pytest.raises(OSError, match="busy") as caught:
            system.unmount(str(tmpfs))
        assert caught.value.errno == errno.EBUSY
        assert caught.value.filename == str(tmpfs)
        assert system.mount_at(str(tmpfs)) is not None
        system.unmount(str(tmpfs), lazy=True)
    assert system.mount_at(str(tmpfs)) is None


@pytest.mark.root
def test_a_mount_is_taken_away(tmpfs: Path) -> None:
    system.unmount(str(tmpfs))
    assert system.mount_at(str(tmpfs)) is None


def test_a_directory_that_is_no_mount_cannot_be_unmounted(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=str(tmp_path)):
        system.unmount(str(tmp_path))


def fusermount_that_says(
    text: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Be a user without privileges whose fusermount3 says `text`; the file with its arguments."""
    said, program = tmp_path / "argv", tmp_path / "fusermount3"
    program.write_text(f'#!/bin/sh\necho "$*" > {said}\necho "{text}" >&2\nexit {code}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    return said


def test_a_user_unmounts_by_fusermount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = fusermount_that_says("", 0, tmp_path, monkeypatch)
    system.unmount("/mnt/x")
    assert said.read_text() == "-u -- /mnt/x\n"
    system.unmount("/mnt/x", lazy=True)
    assert said.read_text() == "-u -z -- /mnt/x\n"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("fusermount3: failed to unmount /mnt/x: Device or resource busy", errno.EBUSY),
        ("fusermount3: entry for /mnt/x not found in /etc/mtab", errno.EPERM),
    ],
)
def test_what_fusermount_says_becomes_an_error(
    text: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fusermount_that_says(text, 1, tmp_path, monkeypatch)
    with pytest.raises(OSError, match=r"/mnt/x") as caught:
        system.unmount("/mnt/x")
    assert caught.value.errno == code
    assert caught.value.strerror == text.removeprefix("fusermount3: ")
