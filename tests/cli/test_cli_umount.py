"""Unmounting: who holds a mount is named, and the end of the daemon is awaited.

The mounts are real ones of tmpfs that are taken for tmemfs; the daemon behind one is any process
whose pid is in its figures.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from as_root import as_nobody, public_directory, tmpfs_at

from tmemfs.cli.main import main
from tmemfs.cli.system import unmounting
from tmemfs.cli.system.holders import Holder, find_holders
from tmemfs.linux import system
from tmemfs.linux.system import MountState

needs_root = pytest.mark.root


@contextmanager
def process(code: str, *argv: object, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that has run `code` and stays until its standard input is closed."""
    program = f"{code}\nprint('ready', flush=True)\nimport sys; sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program, *map(str, argv)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        yield child


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A mount that is taken for one of tmemfs, with no figures."""
    monkeypatch.setattr(system, "FSTYPE", "tmpfs")
    monkeypatch.chdir("/")
    with tmpfs_at(tmp_path / "m\u00e4 m") as place:
        yield place


@contextmanager
def daemon_of(place: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that ends when the mount at `place` is gone, and is in its figures."""
    mount = system.mount_at(str(place))
    assert mount is not None
    code = (
        "import select\n"
        "table = open('/proc/self/mountinfo')\n"
        "changes = select.poll(); changes.register(table, select.POLLPRI)\n"
        "print('ready', flush=True)\n"
        f"while table.seek(0) or '\\n{mount.mount_id} ' in table.read(): changes.poll()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        try:
            write_figures(place, {"pid": child.pid})
            yield child
        finally:
            if is_mounted(place):  # the test failed
                child.kill()


def write_figures(place: Path, figures: object) -> None:
    (place / ".tmemfs").mkdir()
    (place / ".tmemfs" / "status.json").write_text(json.dumps(figures))


def is_mounted(place: Path) -> bool:
    return system.mount_at(str(place)) is not None


# --- who holds a mount -----------------------------------------------------------------------


def holders(place: Path) -> list[Holder]:
    mount = system.mount_at(str(place))
    assert mount is not None
    return find_holders(mount)


@needs_root
def test_nobody_holds_a_mount(place: Path) -> None:
    assert holders(place) == []


@needs_root
def test_a_working_directory(place: Path) -> None:
    (place / "sub").mkdir()
    with process("", cwd=place / "sub") as child:
        assert holders(place) == [
            Holder(f"process {child.pid} ({name_of(child)})", f"its working directory {place}/sub")
        ]


def name_of(child: subprocess.Popen[str]) -> str:
    return Path(f"/proc/{child.pid}/comm").read_text().rstrip("\n")


@needs_root
def test_an_open_file_and_more(place: Path) -> None:
    (place / "file").write_text("x")
    with process("import sys; files = [open(sys.argv[1]), open(sys.argv[1])]", place / "file") as c:
        assert [holder.how for holder in holders(place)] == [f"open file {place}/file"]
    code = "import os, sys; f = open(sys.argv[1]); os.chdir(os.path.dirname(sys.argv[1]))"
    with process(code, place / "file") as c:
        (holder,) = holders(place)
        assert holder.what.startswith(f"process {c.pid} (")
        assert holder.how == f"its working directory {place} and 1 more"


@needs_root
def test_a_program_that_runs(place: Path) -> None:
    program = place / "a program"
    shutil.copy(shutil.which("sleep") or "sleep", program)
    with subprocess.Popen([program, "infinity"]) as child:
        assert [holder.how for holder in holders(place)] == [f"mapped file {program}"]
        child.kill()


@needs_root
def test_a_mount_below(place: Path) -> None:
    with tmpfs_at(place / "below"):
        assert holders(place) == [Holder(f"mount {place}/below", "tmpfs, mounted below it")]


@needs_root
def test_a_file_that_was_removed(place: Path) -> None:
    (place / "gone").write_text("x")
    with process("import os, sys; f = open(sys.argv[1]); os.remove(sys.argv[1])", place / "gone"):
        assert [holder.how for holder in holders(place)] == [f"open file {place}/gone (deleted)"]


@needs_root
def test_others_are_no_holders(place: Path, tmp_path: Path) -> None:
    beside = tmp_path / "beside"
    beside.mkdir()
    (beside / "file").write_text("x")
    with process("import sys; f = open(sys.argv[1])", beside / "file", cwd=beside):
        assert holders(place) == []


@pytest.fixture
def loop(place: Path) -> Iterator[str]:
    """A loop device on a file of the mount."""
    if not os.path.exists("/dev/loop-control"):
        pytest.skip("no loop devices")
    with open(place / "disk", "wb") as file:
        file.truncate(1 << 20)
    device = subprocess.run(
        ["losetup", "--find", "--show", place / "disk"], check=True, capture_output=True, text=True
    ).stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


@needs_root
def test_a_loop_device(place: Path, loop: str) -> None:
    assert holders(place) == [
        Holder(f"loop device {loop}", f"on {place}/disk, not in use (losetup --detach {loop})")
    ]


@needs_root
def test_a_loop_device_with_a_filesystem(place: Path, loop: str, tmp_path: Path) -> None:
    subprocess.run(["mkfs.ext4", "-q", loop], check=True)
    (tmp_path / "fs").mkdir()
    subprocess.run(["mount", loop, tmp_path / "fs"], check=True)
    try:
        assert holders(place)[0].how == f"on {place}/disk, mounted at {tmp_path}/fs"
    finally:
        subprocess.run(["umount", tmp_path / "fs"], check=True)


@pytest.mark.swap
@needs_root
def test_a_loop_device_that_is_swap(place: Path, loop: str) -> None:
    subprocess.run(["mkswap", loop], check=True, capture_output=True)
    # Of the lowest priority, and it is used by nobody who does not have to.
    subprocess.run(["swapon", "--priority", "0", loop], check=True)
    try:
        assert holders(place)[0].how == f"on {place}/disk, used as swap (swapoff {loop} first)"
    finally:
        subprocess.run(["swapoff", loop], check=True)


# --- unmounting ------------------------------------------------------------------------------


@needs_root
def test_the_end_of_the_daemon_is_awaited(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with daemon_of(place) as daemon:
        assert main(["umount", str(place)]) == 0
        # It may not have been collected by its parent, but it is over.
        assert Path(f"/proc/{daemon.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    assert not is_mounted(place)
    assert capfd.readouterr() == ("", "")


@needs_root
def test_a_daemon_that_does_not_end_is_a_failure(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_figures(place, {"pid": os.getpid()})
    assert main(["umount", str(place), "--timeout", "0.01"]) == 32
    assert capsys.readouterr().err == (
        f"tmemfs: {place}: is unmounted, but its daemon did not end within 0.01 seconds; it is "
        "still writing out what it was given, or waits for its source\n"
    )
    assert not is_mounted(place)


@needs_root
def test_a_daemon_that_has_another_mount_goes_on(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_figures(place, {"pid": os.getpid()})
    (tmp_path / "twice").mkdir()
    subprocess.run(["mount", "--bind", place, tmp_path / "twice"], check=True)
    try:
        assert main(["umount", str(place), "--timeout", "0.01"]) == 32
    finally:
        subprocess.run(["umount", tmp_path / "twice"], check=True)
    assert capsys.readouterr().err.endswith(
        f"; it goes on, since it is mounted at {tmp_path}/twice as well\n"
    )


@needs_root
def test_a_daemon_whose_mount_is_in_another_namespace_goes_on(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_figures(place, {"pid": os.getpid()})
    command = ["unshare", "--mount", "--propagation=private", "sh", "-c", "echo ready; cat"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        assert main(["umount", str(place), "--timeout", "0.01"]) == 32
        # Of the shell, or of what it runs.
        assert "; it goes on while the mount namespace of process " in capsys.readouterr().err


@needs_root
@pytest.mark.parametrize("figures", [{}, {"pid": "x"}, {"pid": None}, [], {"pid": 2**22 + 1}])
def test_without_a_pid_nothing_is_awaited_and_that_is_said(
    figures: object, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_figures(place, figures)
    assert main(["umount", str(place)]) == 0
    err = capsys.readouterr().err
    assert err.startswith(f"tmemfs: {place}: ")
    assert err.endswith("; the end of the daemon cannot be awaited\n")
    assert err.count("\n") == 1
    assert not is_mounted(place)


@needs_root
def test_who_holds_it_is_named_and_it_stays(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ExitStack() as stack:
        write_figures(place, {"pid": os.getpid()})
        child = stack.enter_context(process("", cwd=place))
        assert main(["umount", str(place)]) == 32
        assert capsys.readouterr().err.splitlines() == [
            f"tmemfs: process {child.pid} ({name_of(child)}): its working directory {place}",
            f"tmemfs: {place}: is in use; end what holds it, or use --timeout or --lazy",
        ]
        assert is_mounted(place)


@needs_root
def test_who_holds_it_is_waited_for(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with daemon_of(place), process("", cwd=place) as child:

        def find_and_end(mount: system.Mount) -> list[Holder]:
            assert is_mounted(place)
            found = find_holders(mount)
            assert child.stdin is not None
            child.stdin.close()
            child.wait()
            return found

        monkeypatch.setattr(unmounting, "find_holders", find_and_end)
        assert main(["umount", str(place), "--timeout", "60"]) == 0
    assert not is_mounted(place)
    assert f"process {child.pid} " in capsys.readouterr().err


@needs_root
def test_waiting_has_an_end(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_figures(place, {"pid": os.getpid()})
    with process("", cwd=place) as child:
        assert main(["umount", str(place), "--timeout", "0.2"]) == 32
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 2, "the holder is named once"
        assert f"process {child.pid} " in lines[0]
        assert lines[1].startswith(f"tmemfs: {place}: is still in use after 0.2 seconds")
    assert is_mounted(place)


@needs_root
def test_lazily_it_goes_at_once_and_is_waited_for_by_nobody(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_figures(place, {"pid": os.getpid()})
    with process("", cwd=place) as child:
        assert main(["umount", "--lazy", str(place)]) == 0
        assert not is_mounted(place)
        assert capsys.readouterr().err.splitlines() == [
            f"tmemfs: process {child.pid} ({name_of(child)}): its working directory {place}"
        ]


@needs_root
def test_the_commands_own_directory_is_no_holder(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with daemon_of(place):
        monkeypatch.chdir(place)
        assert main(["umount", "."]) == 0
    assert not is_mounted(place)


@needs_root
@pytest.mark.parametrize("options", [[], ["--lazy"]])
def test_a_stale_mount_is_cleared_away_even_if_it_is_held(
    options: list[str],
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(system, "probe", lambda _mountpoint: MountState.STALE)
    with process("", cwd=place):
        assert main(["umount", *options, str(place)]) == 0
    assert not is_mounted(place)
    assert capsys.readouterr().err == (
        f"tmemfs: {place}: cleared away a stale mount whose daemon was gone\n"
    )


@needs_root
def test_a_silent_mount_is_unmounted_and_not_asked(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(system, "probe", lambda _mountpoint: MountState.SILENT)
    os.mkdir(place / ".tmemfs")
    os.mkfifo(place / ".tmemfs" / "status.json")  # a read of it would wait
    threads = threading.active_count()
    assert main(["umount", str(place)]) == 0
    assert threading.active_count() == threads
    assert not is_mounted(place)
    assert capsys.readouterr().err == (
        f"tmemfs: {place}: the daemon does not answer; the end of the daemon cannot be awaited\n"
    )


@needs_root
def test_a_user_cannot_unmount_the_mount_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "FSTYPE", "tmpfs")
    with public_directory() as public, tmpfs_at(public / "m") as place:
        write_figures(place, {"pid": os.getpid()})
        outcome = as_nobody(lambda: main(["umount", str(place)]))
        assert is_mounted(place)
    assert outcome.code == 1
    lines = outcome.err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"tmemfs: {place}: ")


# --- what is no mount of ours ----------------------------------------------------------------


def test_nothing_is_mounted_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (tmp_path, tmp_path / "none"):
        assert main(["umount", str(path)]) == 32
        assert capsys.readouterr().err == f"tmemfs: {path}: nothing is mounted there\n"


def test_a_mount_of_another_kind_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["umount", "/proc"]) == 32
    line = "tmemfs: /proc: what is mounted there is proc, not tmemfs\n"
    assert capsys.readouterr().err == line
