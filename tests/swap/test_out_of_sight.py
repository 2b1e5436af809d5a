"""Swap on a mount whose path is another, or none: it is found, it is not lost, it is turned off."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import pytest
from as_root import Outcome, tmpfs_at
from command import COMMAND, await_end
from command import run as run_command
from loop_swap import run, used_swap
from mounting import SECONDS, Mounted, mounted

from tmemfs.cli.main import main
from tmemfs.cli.system import swapvolume
from tmemfs.linux import loops, system

pytestmark = [pytest.mark.root, pytest.mark.swap]

_numbers = count()


def tmemfs(*argv: object, code: int = 0) -> Outcome:
    return run_command(*COMMAND, *argv, code=code)


@pytest.fixture
def name() -> Iterator[str]:
    """A volume that nobody else has; whatever a failed test left of it is taken away."""
    name = f"sight{os.getpid()}-{next(_numbers)}"
    yield name
    for loop in loops.attached():
        if loop.path.endswith(f"/{name}"):
            with suppress(OSError):
                run("swapoff", loop.device)
            loops.detach(loop)
    place = f"{swapvolume.PRIVATE}/{name}"
    while system.mount_at(place) is not None:
        system.unmount(place, lazy=True)
    with suppress(FileNotFoundError):
        os.rmdir(place)


@pytest.fixture
def mount(tmp_path: Path, name: str) -> Iterator[Mounted]:
    """A mount that can be moved, which it could not be on a mount that is shared."""
    with tmpfs_at(tmp_path / "private") as place:
        run("mount", "--make-private", place)
        for directory in ("source", "elsewhere"):
            (place / directory).mkdir()
        options = ("--budget=16M", f"--swap={name}=8M", f"--swap={name}x=4M")
        with mounted(place / "source", place / "m", *options) as mount:
            yield mount


@contextmanager
def moved(mount: Mounted) -> Iterator[Path]:
    """Where the mount is meanwhile."""
    elsewhere = mount.path.parent / "elsewhere"
    run("mount", "--move", mount.path, elsewhere)
    try:
        yield elsewhere
    finally:
        run("mount", "--move", elsewhere, mount.path)


@contextmanager
def mounted_twice(mount: Mounted) -> Iterator[Path]:
    elsewhere = mount.path.parent / "elsewhere"
    run("mount", "--bind", mount.path, elsewhere)
    try:
        yield elsewhere
    finally:
        run("umount", elsewhere)


# --- a mount that has another path -----------------------------------------------------------


@pytest.mark.parametrize("how", [moved, mounted_twice])
@pytest.mark.parametrize("by_its_place", [True, False])
def test_it_is_turned_off_wherever_it_is(
    how: object, by_its_place: bool, mount: Mounted, name: str
) -> None:
    device = tmemfs("swapon", name, "--mountpoint", mount.path).out.strip()
    with how(mount) as elsewhere:  # type: ignore[operator]
        where = ("--mountpoint", elsewhere) if by_its_place else ()
        assert tmemfs("swapon", name, "--mountpoint", elsewhere, code=32).err == (
            f"tmemfs: {name}: is on already: {device}\n"
        )
        assert tmemfs("swapoff", name, *where) == Outcome(0, "", "")
        assert used_swap(device) is None
        assert device not in [loop.device for loop in loops.attached()]


@pytest.mark.parametrize("how", [moved, mounted_twice])
def test_it_is_not_taken_out_of_sight(how: object, mount: Mounted, name: str) -> None:
    device = tmemfs("swapon", name, "--mountpoint", mount.path).out.strip()
    try:
        with how(mount) as elsewhere:  # type: ignore[operator]
            err = tmemfs("umount", "--lazy", elsewhere, code=32).err
            assert err.startswith(f"tmemfs: {elsewhere}: is in use as swap ({device}); first ")
            assert f"'tmemfs swapoff {name} --mountpoint {elsewhere}'" in err
            assert system.mount_at(str(elsewhere)) is not None
            rows = json.loads(tmemfs("status", "-Jb", "-o", "POOL,DEVICE", elsewhere).out)
            found = {row["pool"]: row["device"] for row in rows["tmemfs"]}
            assert found == {"cache": None, name: device, f"{name}x": None}
            said = run_command(*COMMAND, "check", code=None).out
            assert device not in next(line for line in said.splitlines() if "other swap" in line)
    finally:
        tmemfs("swapoff", name)


def test_the_place_that_it_was_moved_from_will_do(mount: Mounted, name: str) -> None:
    device = tmemfs("swapon", name, "--mountpoint", mount.path).out.strip()
    with moved(mount):
        err = tmemfs("swapoff", f"{name}x", "--mountpoint", mount.path, code=32).err
        assert err == f"tmemfs: {mount.path}: nothing is mounted there\n"
        tmemfs("swapoff", name, "--mountpoint", mount.path)
        assert used_swap(device) is None


def test_who_holds_a_mount_that_was_moved(mount: Mounted, name: str) -> None:
    device = tmemfs("swapon", name, "--mountpoint", mount.path).out.strip()
    with moved(mount) as elsewhere:
        err = tmemfs("umount", elsewhere, code=32).err
        assert f"tmemfs: loop device {device}: on {elsewhere}/.tmemfs/swap/{name}, used as" in err
    tmemfs("swapoff", name)


def test_a_daemon_that_was_killed_after_it_was_moved(mount: Mounted, name: str) -> None:
    device = tmemfs("swapon", name, "--mountpoint", mount.path).out.strip()
    elsewhere = mount.path.parent / "elsewhere"
    run("mount", "--move", mount.path, elsewhere)
    mount.kill()
    err = tmemfs("umount", elsewhere, code=32).err
    assert f"is in use as swap ({device})" in err
    err = tmemfs("swapoff", name, "--force").err
    assert err == f"tmemfs: {name}: cleared away; nothing was lost\n"
    assert used_swap(device) is None
    assert system.mount_at(str(elsewhere)) is None


def test_one_of_its_own_that_was_moved(name: str, tmp_path: Path) -> None:
    """In a namespace where that can be done."""
    script = """
        set -e
        on="swapon $name --size=8M --budget=16M"
        device=$("$@" $on)
        mount --move $place "$elsewhere"
        if "$@" $on; then exit 3; fi
        "$@" swapoff $name -v
        if grep -q "^$device " /proc/swaps; then exit 4; fi
        if grep -q /$name /proc/self/mountinfo; then exit 5; fi
    """
    place = f"{swapvolume.PRIVATE}/{name}"
    err = run_command(
        *("unshare", "--mount", "--propagation=private"),
        *("env", f"name={name}", f"place={place}", f"elsewhere={tmp_path}"),
        *("sh", "-c", script, "sh", *COMMAND),
    ).err
    assert f"tmemfs: {name}: is on already: /dev/loop" in err
    assert f"tmemfs: {tmp_path} is unmounted, its daemon has ended\n" in err
    assert not Path(place).exists()


# --- a mount that has none -------------------------------------------------------------------


def test_a_mount_that_was_taken_away_lazily(mount: Mounted, name: str) -> None:
    device = tmemfs("swapon", name, "--mountpoint", mount.path).out.strip()
    run("umount", "--lazy", mount.path)
    # Its place is one where nothing is mounted, and the volume is the only one of its name.
    assert tmemfs("swapoff", name, "--mountpoint", mount.path) == Outcome(0, "", "")
    assert used_swap(device) is None
    assert mount.process.wait(SECONDS) == 0


def test_one_of_its_own_that_was_taken_away_lazily(name: str) -> None:
    device = tmemfs("swapon", name, "--size=8M", "--budget=16M").out.strip()
    place = Path(swapvolume.PRIVATE, name)
    daemon = os.pidfd_open(json.loads((place / ".tmemfs" / "status.json").read_text())["pid"])
    run("umount", "--lazy", place)
    again = tmemfs("swapon", name, "--size=8M", "--budget=16M", code=32)
    assert again.err == f"tmemfs: {name}: is on already: {device}\n"
    assert tmemfs("swapoff", name) == Outcome(0, "", "")
    assert used_swap(device) is None
    await_end(daemon)
    os.close(daemon)
    assert "is not on: " in tmemfs("swapoff", name, code=32).err
    place.rmdir()


def test_a_daemon_that_was_stopped_where_no_path_leads(
    mount: Mounted, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    device = tmemfs("swapon", name, "--mountpoint", mount.path).out.strip()
    run("umount", "--lazy", mount.path)
    mount.process.send_signal(signal.SIGSTOP)
    try:
        monkeypatch.setattr(system, "ANSWER_SECONDS", 0.5)
        assert main(["swapoff", name]) == 32
        assert "the daemon does not answer, and swapoff would wait" in capsys.readouterr().err
        assert used_swap(device) is not None
    finally:
        mount.process.send_signal(signal.SIGCONT)
    tmemfs("swapoff", name)
    assert mount.process.wait(SECONDS) == 0


def test_a_daemon_that_was_killed_where_no_path_leads(mount: Mounted, name: str) -> None:
    device = tmemfs("swapon", name, "--mountpoint", mount.path).out.strip()
    run("umount", "--lazy", mount.path)
    mount.kill()
    assert "the daemon is gone, and with it 0B" in tmemfs("swapoff", name, code=32).err
    tmemfs("swapoff", name, "--force")
    assert used_swap(device) is None


def test_a_mount_in_another_namespace(name: str, tmp_path: Path) -> None:
    inside = ("unshare", "--mount", "--propagation=private", *COMMAND, "swapon", name)
    device = run_command(*inside, "--size=8M", "--budget=16M").out.strip()
    assert system.mount_at(f"{swapvolume.PRIVATE}/{name}") is None
    err = tmemfs("swapoff", name).err
    assert used_swap(device) is None
    start = f"tmemfs: {name}: is off; its mount stays, in the namespace of process "
    assert err.startswith(start)
    daemon = int(err.removeprefix(start).partition(":")[0])
    pidfd = os.pidfd_open(daemon)
    place = f"{swapvolume.PRIVATE}/{name}"
    run("nsenter", "--target", str(daemon), "--mount", "umount", place)
    await_end(pidfd)
    os.close(pidfd)


def test_a_device_that_is_on_another_file_by_now(mount: Mounted, name: str, tmp_path: Path) -> None:
    """It was detached and attached again since it was looked at: it is another's."""
    tmemfs("swapon", name, "--mountpoint", mount.path)
    (before,) = [loop for loop in loops.attached() if loop.path.endswith(f"/{name}")]
    tmemfs("swapoff", name)
    (tmp_path / "other").write_bytes(bytes(1 << 20))
    run("losetup", before.device, tmp_path / "other")
    try:
        assert not loops.is_attached(before)
        loops.detach(before)
        (now,) = [loop for loop in loops.attached() if loop.device == before.device]
        assert now.path == f"{tmp_path}/other"
    finally:
        run("losetup", "--detach", before.device)
