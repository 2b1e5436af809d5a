"""The real command with a real daemon: mounting, figures, unmounting, a killed daemon."""

import importlib
import json
import os
import select
import signal
import subprocess
from pathlib import Path

import pytest
from as_root import Outcome, as_nobody, public_directory
from command import COMMAND, Place, await_end, run

from tmemfs.cli.main import main
from tmemfs.linux import system

# What main() imports when it is used, a process that drops its privileges may not find any more.
importlib.import_module("tmemfs.cli.commands.status")

pytestmark = [
    pytest.mark.root,
    # What runs without privileges is a fork of this process, and uses no thread of it.
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


# --- in the background -----------------------------------------------------------------------


def test_a_mount_answers_when_the_command_returns(place: Place) -> None:
    assert place.mount() == Outcome(0, "", "")
    assert (place.mountpoint / "file").read_text() == "from the source"
    (place.mountpoint / "new").write_text("through the mount")
    assert (place.source / "new").read_text() == "through the mount"
    assert place.run("umount", place.mountpoint) == Outcome(0, "", "")
    assert os.listdir(place.mountpoint) == []


def test_the_daemon_has_ended_when_umount_returns(place: Place) -> None:
    place.mount()
    daemon = os.pidfd_open(place.pid)
    place.run("umount", place.mountpoint)
    assert place.entry is None
    assert select.select([daemon], [], [], 0)[0] == [daemon]
    os.close(daemon)


def test_findmnt_finds_it(place: Place) -> None:
    place.mount()
    line = run("findmnt", "--noheadings", "--raw", "-t", "fuse.tmemfs", "-o", "SOURCE,TARGET",
               place.mountpoint).out  # fmt: skip
    assert line.split() == [
        str(path).replace(" ", "\\x20") for path in (place.source, place.mountpoint)
    ]


def test_a_source_with_any_name(place: Place, tmp_path: Path) -> None:
    source = tmp_path / "a,b\\c \u00e4,ro"
    source.mkdir()
    (source / "file").write_text("odd")
    place.run("mount", source, place.mountpoint, "--budget=16M")
    assert (place.mountpoint / "file").read_text() == "odd"
    assert place.entry is not None
    assert place.entry.source == str(source)
    assert "rw" in place.entry.options


def test_options_reach_the_kernel(place: Place) -> None:
    place.mount("-o", "ro,noexec,noatime,suid,dev")
    assert place.entry is not None
    assert place.entry.options >= {"ro", "noexec", "noatime"}
    assert not place.entry.options & {"nosuid", "nodev"}
    assert "allow_other" in place.entry.super_options
    with pytest.raises(OSError, match="Read-only"):
        (place.mountpoint / "new").write_text("")


def test_why_the_daemon_cannot_mount_is_on_stderr(place: Place) -> None:
    outcome = place.run("mount", place.source, place.mountpoint, "--budget=4K", code=2)
    assert outcome.err.startswith("tmemfs: ")
    assert outcome.err.count("\n") == 1
    assert place.entry is None


def test_a_second_mount_at_the_same_place_is_refused(place: Place) -> None:
    place.mount()
    line = f"tmemfs: {place.mountpoint}: {place.source} is already mounted there by tmemfs\n"
    assert place.mount(code=32).err == line
    assert (place.mountpoint / "file").read_text() == "from the source"


def test_over_the_source_itself(place: Place) -> None:
    place.run("mount", place.source, place.source, "--budget=16M")
    assert system.mount_at(str(place.source)) is not None
    assert (place.source / "file").read_text() == "from the source"
    (place.source / "new").write_text("through the mount")
    place.run("umount", place.source)
    assert (place.source / "new").read_text() == "through the mount"


# --- in the foreground -----------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_in_the_foreground_it_ends_in_order(number: signal.Signals, place: Place) -> None:
    with subprocess.Popen(
        [*COMMAND, "mount", "-f", "-v", place.source, place.mountpoint, "--budget=16M"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as daemon:
        assert daemon.stdout is not None
        assert daemon.stderr is not None
        said = f"tmemfs: {place.source} mounted on {place.mountpoint}\n"
        assert daemon.stdout.readline() == said
        assert (place.mountpoint / "file").read_text() == "from the source"
        assert place.pid == daemon.pid
        daemon.send_signal(number)
        assert daemon.wait() == 0, daemon.stderr.read()
    assert place.entry is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_as_soon_as_it_is_mounted(number: signal.Signals, place: Place) -> None:
    """Before anybody can have looked at the mount: nothing stale stays, and nothing hangs."""
    with open("/proc/self/mountinfo") as table:
        changes = select.poll()
        changes.register(table, select.POLLPRI)
        with subprocess.Popen(
            [*COMMAND, "mount", "-f", place.source, place.mountpoint, "--budget=16M"],
            stderr=subprocess.PIPE,
            text=True,
        ) as daemon:
            try:
                while place.entry is None:
                    assert changes.poll(60_000), "it never mounts"
                daemon.send_signal(number)
                _, err = daemon.communicate(timeout=60)
            finally:
                daemon.kill()
    assert place.entry is None
    assert daemon.returncode == 0, err


def test_a_signal_ends_a_daemon_in_the_background(place: Place) -> None:
    place.mount()
    place.kill(signal.SIGTERM)
    assert place.entry is None


# --- figures ---------------------------------------------------------------------------------


def test_the_figures_of_a_mount(place: Place) -> None:
    place.mount("--swap", "swap0=1M")
    for _ in range(2):
        # The kernel's own cache would answer the second time.
        fd = os.open(place.mountpoint / "file", os.O_RDONLY)
        assert os.pread(fd, 100, 0) == b"from the source"
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)
    columns = "POOL,KIND,PAGES,FOUND-GETS,MEM-LIMIT,SOURCE"
    document = json.loads(place.run("status", "-Jb", "-o", columns, place.mountpoint).out)
    limits = {row.pop("mem-limit") for row in document["tmemfs"]}
    assert len(limits) == 1
    assert abs(limits.pop() - (16 << 20)) < 1 << 20
    assert document["tmemfs"] == [
        {
            "pool": "cache", "kind": "ephemeral", "pages": 1, "found-gets": 1,
            "source": str(place.source),
        },
        {
            "pool": "swap0", "kind": "persistent", "pages": 0, "found-gets": 0,
            "source": str(place.source),
        },
    ]  # fmt: skip


def test_all_columns_but_the_ratios_of_nothing_have_a_figure(place: Place) -> None:
    place.mount()
    (row,) = json.loads(place.run("status", "-Jb", "--output-all", place.mountpoint).out)["tmemfs"]
    assert {name for name, value in row.items() if value is None} <= {
        "ratio", "hit%", "last-failsafe",
        # What only a swap volume has.
        "device", "prio", "used", "size", "unsafe", "overflow", "overflow-pages", "overflow-reads",
        "overflow-writes", "overflow-errors",
    }  # fmt: skip


def test_everybody_may_see_the_figures_of_a_mount_of_root(place: Place) -> None:
    with public_directory() as public:
        (public / "m").mkdir()
        place.run("mount", place.source, public / "m", "--budget=16M")
        try:
            outcome = as_nobody(lambda: main(["status", "-n", "-o", "POOL", str(public / "m")]))
            assert outcome == Outcome(0, "cache\n", "")
        finally:
            place.run("umount", public / "m")


def test_a_table_of_all_mounts(place: Place) -> None:
    place.mount()
    lines = place.run("status", "-n", "-r", "-o", "MOUNTPOINT,POOL").out.splitlines()
    escaped = str(place.mountpoint).replace(" ", "\\x20")
    assert f"{escaped} cache" in lines


# --- held ------------------------------------------------------------------------------------


def test_who_holds_the_mount_is_named(place: Place) -> None:
    place.mount()
    with open(place.mountpoint / "file"):
        err = place.run("umount", place.mountpoint, code=32).err
    lines = err.splitlines()
    assert lines[0].startswith(f"tmemfs: process {os.getpid()} (")
    assert lines[0].endswith(f": open file {place.mountpoint}/file")
    assert lines[1].startswith(f"tmemfs: {place.mountpoint}: is in use; ")
    assert len(lines) == 2
    place.run("umount", place.mountpoint)


def test_a_mount_that_goes_lazily_serves_those_who_hold_it(place: Place) -> None:
    place.mount()
    daemon = os.pidfd_open(place.pid)
    with open(place.mountpoint / "file") as file:
        err = place.run("umount", "--lazy", place.mountpoint).err
        assert f"process {os.getpid()} " in err
        assert place.entry is None
        assert file.read() == "from the source"
    await_end(daemon)
    os.close(daemon)


@pytest.mark.swap
def test_swap_on_the_mount_is_named(place: Place) -> None:
    place.mount("--swap", "swap0=1M")
    volume = place.mountpoint / ".tmemfs" / "swap" / "swap0"
    device = run("losetup", "--find", "--show", "--direct-io=on", volume).out.strip()
    try:
        err = place.run("umount", place.mountpoint, code=32).err
        loop = f"tmemfs: loop device {device}: on {volume}, "
        assert err.splitlines()[0] == f"{loop}not in use (losetup --detach {device})"
        run("mkswap", device)
        run("swapon", "--priority", "0", device)
        try:
            err = place.run("umount", place.mountpoint, code=32).err
            assert err.splitlines()[0] == f"{loop}used as swap (swapoff {device} first)"
        finally:
            run("swapoff", device)
    finally:
        run("losetup", "--detach", device)
    place.run("umount", place.mountpoint, "--timeout", "60")


# --- the daemon is gone ----------------------------------------------------------------------


def test_a_stale_mount_is_recognised(place: Place) -> None:
    place.mount()
    place.kill()
    assert place.entry is not None
    outcome = place.run("status", place.mountpoint, code=32)
    assert outcome.out == ""
    assert outcome.err.startswith(f"tmemfs: {place.mountpoint}: the mount is stale, ")
    assert outcome.err.count("\n") == 1


def test_a_stale_mount_is_cleared_by_the_next_mount(place: Place) -> None:
    place.mount()
    place.kill()
    line = f"tmemfs: {place.mountpoint}: cleared away a stale mount whose daemon was gone\n"
    assert place.mount() == Outcome(0, "", line)
    assert (place.mountpoint / "file").read_text() == "from the source"
    entries = [m for m in system.tmemfs_mounts() if m.mountpoint == str(place.mountpoint)]
    assert len(entries) == 1


def test_a_stale_mount_over_its_source_is_cleared_by_the_next(place: Place) -> None:
    over = Place(place.source, place.source)
    over.mount()
    over.kill()
    assert "cleared away a stale mount" in over.mount().err
    assert (place.source / "file").read_text() == "from the source"


def test_a_stale_mount_that_is_held_is_unmounted(place: Place) -> None:
    place.mount()
    holding = os.open(place.mountpoint, os.O_PATH)
    place.kill()
    line = f"tmemfs: {place.mountpoint}: cleared away a stale mount whose daemon was gone\n"
    assert place.run("umount", place.mountpoint).err == line
    assert place.entry is None
    os.close(holding)


def test_a_mount_with_auto_unmount_is_unmounted_like_any_other(place: Place) -> None:
    """Whether it goes away when the daemon is killed is up to libfuse, and is not certain there:
    it looks once, and may look before the kernel has cut the mount off.
    """
    place.mount("-o", "auto_unmount")
    assert (place.mountpoint / "file").read_text() == "from the source"
    place.run("umount", place.mountpoint)
    assert place.entry is None


def test_a_daemon_that_does_not_answer(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is stopped, so that no time is enough for it; nothing waits for it for ever."""
    place.mount()
    monkeypatch.setattr(system, "ANSWER_SECONDS", 0.2)
    daemon = os.pidfd_open(place.pid)
    signal.pidfd_send_signal(daemon, signal.SIGSTOP)
    try:
        assert main(["status", str(place.mountpoint)]) == 32
        line = f"tmemfs: {place.mountpoint}: the daemon does not answer"
        assert capsys.readouterr().err == f"{line}\n"
        assert main(["mount", str(place.source), str(place.mountpoint)]) == 32
        assert "does not answer" in capsys.readouterr().err
        assert main(["umount", "--lazy", str(place.mountpoint)]) == 0
        assert place.entry is None
    finally:
        signal.pidfd_send_signal(daemon, signal.SIGCONT)
    await_end(daemon)
    os.close(daemon)
