"""`tmemfs top` over real mounts: on a terminal, and when a mount goes away or does not answer."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command import COMMAND, environment
from mounting import SECONDS, Mounted, mounted
from terminal import on_terminal

pytestmark = pytest.mark.root


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mounted]:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(os.urandom(1 << 20))
    with mounted(source, tmp_path / "mount", "--budget=16M", "--swap=swap0=1M") as mount:
        yield mount


@contextmanager
def watching(*argv: object) -> Iterator["subprocess.Popen[str]"]:
    """A run in a pipe, ended in the end."""
    command = subprocess.Popen(
        [*COMMAND, "top", "--batch", "--delay=0.2", *map(str, argv)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        yield command
    finally:
        command.kill()
        command.communicate()


def until(command: "subprocess.Popen[str]", text: str) -> str:
    """The next line with `text` in it; the test is given up where none comes."""
    assert command.stdout is not None
    for line in command.stdout:
        if text in line:
            return line
    raise AssertionError(f"no {text!r}")


@pytest.mark.parametrize("end", ["q", "\x03"])
def test_on_a_terminal(mount: Mounted, end: str) -> None:
    with on_terminal("top", "--delay=0.2", mount.path) as (command, terminal):
        before = terminal.settings()
        terminal.until("every 0.2 s; q ends")
        (mount.path / "file").read_bytes()
        terminal.until("GETS/s")
        assert terminal.settings() != before, "keys are read as they are typed"
        if end == "q":
            terminal.type(end)
        else:
            command.send_signal(signal.SIGINT)
        assert command.wait(SECONDS) == 0
        assert terminal.settings() == before
        shown = terminal.until_closed()
    assert str(mount.path) in shown
    assert "swap0" in shown
    first, last = shown.index("\x1b[?1049h"), shown.rindex("\x1b[?1049l")
    assert first < last, "the screen is given back"
    assert shown.rindex("\x1b[?25h") > shown.index("\x1b[?25l"), "and the cursor"


def test_it_ends_after_so_many_looks(mount: Mounted) -> None:
    with watching("-n", "2", mount.path) as command:
        out, err = command.communicate(timeout=SECONDS)
    assert (command.returncode, err) == (0, "")
    assert [line.split()[1] for line in out.splitlines() if str(mount.path) in line] == [
        "cache", "swap0", "cache", "swap0",
    ]  # fmt: skip


def test_what_goes_on_has_rates(mount: Mounted) -> None:
    with watching(mount.path) as command:
        heading = until(command, "MOUNTPOINT").split()
        (mount.path / "file").read_bytes()
        while True:
            cells = until(command, " cache ").split()
            # The share of the hits, of late, is empty while nothing is read.
            if sum(cell.endswith("%") for cell in cells) == 2:
                break
    row = dict(zip(heading, cells, strict=False))
    assert float(row["GETS/s"]) > 0
    assert float(row["PUTS/s"]) > 0


def test_a_daemon_that_does_not_answer_is_named_until_it_does(mount: Mounted) -> None:
    with watching(mount.path) as command:
        until(command, " cache ")
        mount.process.send_signal(signal.SIGSTOP)
        try:
            line = until(command, "answer")
            # Asked once and no more, as long as it does not.
            until(command, "answer")
            threads = len(os.listdir(f"/proc/{command.pid}/task"))
            for _ in range(3):
                until(command, "answer")
            assert len(os.listdir(f"/proc/{command.pid}/task")) == threads == 2
        finally:
            mount.process.send_signal(signal.SIGCONT)
        assert line == f"{mount.path}: the daemon does not answer\n"
        until(command, " cache ")


def test_a_mount_that_goes_away_is_named_until_it_is_back(mount: Mounted) -> None:
    with watching(mount.path) as command:
        until(command, " cache ")
        mount.kill()
        until(command, f"{mount.path}: the mount is stale, its daemon is gone; ")
        subprocess.run(["umount", mount.path], check=True)
        until(command, f"{mount.path}: nothing is mounted there")
        with mounted(mount.source, mount.path, "--budget=16M"):
            until(command, " cache ")
        command.send_signal(signal.SIGINT)
        assert command.wait(SECONDS) == 0


def test_mounts_come_and_go_where_none_is_named(mount: Mounted, tmp_path: Path) -> None:
    with watching() as command:
        until(command, f"{mount.path} cache")
        with mounted(mount.source, tmp_path / "another", "--budget=16M"):
            until(command, f"{tmp_path}/another cache")
        until(command, f"{mount.path} swap0")
