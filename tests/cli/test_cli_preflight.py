"""What is looked at before a mount is tried: each refusal is one line with the cause."""

import errno
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from as_root import NOBODY, as_nobody, public_directory

from tmemfs.cli.system import preflight
from tmemfs.config import MountConfig, parse_mount
from tmemfs.errors import MountFailure, NotPermitted, SystemFailure, TmemfsError
from tmemfs.linux import system
from tmemfs.linux.system import MountState

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture(autouse=True)
def as_root_with_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "FUSE_DEVICE", os.devnull)
    monkeypatch.setattr(preflight, "is_root", lambda: True)


def asked(source: Path, mountpoint: Path, *options: str) -> MountConfig:
    return parse_mount(str(source), str(mountpoint), options, as_root=True)


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """A source and a mountpoint that nothing is wrong with."""
    source, mountpoint = tmp_path / "source", tmp_path / "mountpoint"
    source.mkdir()
    mountpoint.mkdir()
    return source, mountpoint


def refused(config: MountConfig, kind: type[TmemfsError], line: str) -> None:
    with pytest.raises(kind, match=re.escape(line)) as caught:
        preflight.check(config)
    assert type(caught.value) is kind


# --- directories -----------------------------------------------------------------------------


def test_nothing_is_wrong(places: tuple[Path, Path]) -> None:
    assert preflight.check(asked(*places)) == asked(*places)


def test_over_the_source_itself(places: tuple[Path, Path]) -> None:
    source, _ = places
    assert preflight.check(asked(source, source)) == asked(source, source)


def test_a_source_inside_the_mountpoint(places: tuple[Path, Path]) -> None:
    inside = places[1] / "source"
    inside.mkdir()
    assert preflight.check(asked(inside, places[1])) == asked(inside, places[1])


def test_a_mountpoint_inside_the_source(places: tuple[Path, Path]) -> None:
    inside = places[0] / "mountpoint"
    inside.mkdir()
    line = f"{inside} is inside {places[0]}: the mount would contain itself"
    refused(asked(places[0], inside), MountFailure, line)
    refused(asked(Path("/"), inside), MountFailure, f"{inside} is inside /: ")


def test_a_name_that_only_begins_like_the_source_is_not_inside(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "ab").mkdir()
    assert preflight.check(asked(tmp_path / "a", tmp_path / "ab")).source == str(tmp_path / "a")


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (lambda _path: None, "does not exist"),
        (lambda path: path.write_text(""), "is not a directory"),
        (lambda path: path.symlink_to("nowhere"), "does not exist"),
    ],
)
def test_what_is_no_directory(
    make: Callable[[Path], Any], cause: str, places: tuple[Path, Path], tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong"
    make(wrong)
    refused(asked(wrong, places[1]), MountFailure, f"{wrong}: the source {cause}")
    refused(asked(places[0], wrong), MountFailure, f"{wrong}: the mountpoint {cause}")


def test_below_a_file(places: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    below = tmp_path / "file" / "x"
    refused(asked(below, places[1]), MountFailure, f"{below}: the source is not a directory")


# --- the restrictions of the source ----------------------------------------------------------


def test_what_is_forbidden_in_the_source_stays_forbidden(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.statvfs

    def statvfs(path: str) -> os.statvfs_result:
        fields = list(real(path))
        fields[8] = os.ST_NOSUID | os.ST_NOEXEC  # f_flag
        return os.statvfs_result(fields)

    monkeypatch.setattr(os, "statvfs", statvfs)
    options = preflight.check(asked(*places, "suid", "dev", "exec")).fuse_options
    assert options >= {"nosuid", "noexec", "dev"}
    assert not options & {"suid", "exec"}


# --- what is mounted there -------------------------------------------------------------------


def states(monkeypatch: pytest.MonkeyPatch, *states: MountState) -> list[tuple[str, bool]]:
    """Let the mounts at a mountpoint be in these states, the topmost first; what is unmounted."""
    left, unmounted = list(states), []
    monkeypatch.setattr(system, "probe", lambda _mountpoint: left[0])

    def unmount(mountpoint: str, *, lazy: bool) -> None:
        unmounted.append((mountpoint, lazy))
        del left[0]
        if not left:
            monkeypatch.setattr(system, "mount_at", lambda _mountpoint: None)

    monkeypatch.setattr(system, "unmount", unmount)
    return unmounted


def test_a_living_mount_is_left_alone(
    add_mount: Any, places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    unmounted = states(monkeypatch, MountState.ALIVE)
    there = add_mount(source="/srv/slow")
    line = f"{there}: /srv/slow is already mounted there by tmemfs"
    refused(asked(places[0], there), MountFailure, line)
    assert unmounted == []


def test_a_silent_mount_is_left_alone(
    add_mount: Any, places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    unmounted = states(monkeypatch, MountState.SILENT)
    there = add_mount()
    refused(asked(places[0], there), MountFailure, f"'tmemfs umount --lazy {there}'")
    assert unmounted == []


def test_stale_mounts_are_cleared_away_and_that_is_said(
    add_mount: Any,
    places: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    unmounted = states(monkeypatch, MountState.STALE, MountState.STALE)
    there = add_mount()
    add_mount()
    assert preflight.check(asked(places[0], there)).mountpoint == str(there)
    assert unmounted == [(str(there), True)] * 2
    line = f"tmemfs: {there}: cleared away a stale mount whose daemon was gone\n"
    assert capsys.readouterr().err == line * 2


def test_a_mount_of_others_may_be_mounted_over(
    add_mount: Any, places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "probe", lambda _mountpoint: pytest.fail("not ours to ask"))
    there = add_mount(fstype="ext4")
    assert preflight.check(asked(places[0], there)).mountpoint == str(there)


# --- the device ------------------------------------------------------------------------------


def test_no_fuse(places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "FUSE_DEVICE", "/dev/no-such-device")
    line = "/dev/no-such-device: there is no FUSE here; try 'modprobe fuse' as root"
    refused(asked(*places), SystemFailure, line)


def test_fuse_is_not_for_everybody(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: str, _flags: int) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(os, "open", denied)
    refused(asked(*places), NotPermitted, f"{os.devnull}: you may not open it")


# --- without root ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Public:
    """Places that a user without privileges finds."""

    place: Path

    @property
    def source(self) -> Path:
        return self.place / "source"

    @property
    def own(self) -> Path:
        return self.place / "own"

    @property
    def conf(self) -> Path:
        return self.place / "fuse.conf"

    def check(self, *options: str, **changes: Path) -> tuple[int, str]:
        """What the user is told of a mount of `source` on `own`, where `changes` do not differ."""
        paths = {"source": self.source, "mountpoint": self.own, "path": self.place / "bin"}
        paths |= changes
        config = parse_mount(str(paths["source"]), str(paths["mountpoint"]), options, as_root=False)

        def call() -> int:
            preflight.is_root = lambda: False
            os.environ["PATH"] = str(paths["path"])
            try:
                preflight.check(config)
            except TmemfsError as exc:
                print(exc)
                return exc.exit_code
            return 0

        outcome = as_nobody(call)
        assert outcome.err == ""
        return outcome.code, outcome.out.rstrip("\n")


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> Iterator[Public]:
    with public_directory() as place:
        public = Public(place)
        program = place / "bin" / "fusermount3"
        program.parent.mkdir()
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        public.source.mkdir()
        public.own.mkdir()
        os.chown(public.own, NOBODY, NOBODY)
        public.conf.write_text("#user_allow_other\n")
        monkeypatch.setattr(preflight, "FUSE_CONF", str(public.conf))
        yield public


@pytest.mark.root
def test_a_users_own_directory(public: Public) -> None:
    assert public.check() == (0, "")


@pytest.mark.root
@pytest.mark.parametrize("mode", [0o755, 0o1777])
def test_a_directory_of_somebody_else(mode: int, public: Public) -> None:
    """Also one that everybody may write to, but whose entries belong to their owners."""
    others = public.place / "others"
    others.mkdir()
    others.chmod(mode)
    code, said = public.check(mountpoint=others)
    assert code == 1
    assert said.startswith(
        f"{others}: the mountpoint belongs to root; without root you can mount only on a directory"
    )


@pytest.mark.root
def test_a_directory_that_is_ones_own_and_cannot_be_written(public: Public) -> None:
    public.own.chmod(0o555)
    assert public.check()[0] == 1


@pytest.mark.root
def test_a_source_that_may_not_be_read(public: Public) -> None:
    public.source.chmod(0o700)
    said = f"{public.source}: you may not read the source directory"
    assert public.check() == (1, said)


@pytest.mark.root
@pytest.mark.parametrize("option", ["allow_other", "allow_root"])
def test_others_in_a_mount_of_a_user(option: str, public: Public) -> None:
    line = f"allow_other: without root this needs the line 'user_allow_other' in {public.conf}"
    assert public.check(option) == (1, line)
    public.conf.write_text("# comment\n  user_allow_other  # why not\n")
    assert public.check(option) == (0, "")


@pytest.mark.root
def test_without_the_program_that_mounts_for_users(public: Public) -> None:
    code, said = public.check(path=public.place)
    assert code == 2
    assert said.startswith("fusermount3 is not installed")


def test_without_the_file_of_fuse_nobody_lets_others_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "FUSE_CONF", str(tmp_path / "none"))
    assert not preflight._user_allow_other()


def test_a_user_without_a_name_is_a_number() -> None:
    assert preflight._user_name(0) == "root"
    assert preflight._user_name(4_000_000_000) == "user 4000000000"
