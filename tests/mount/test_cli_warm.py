"""`tmemfs warm`: files are in the pool before they are read, and not in the kernel's cache."""

import importlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from as_root import Outcome, as_nobody, public_directory
from command import COMMAND, environment, run
from mounting import SECONDS, Mounted, mounted, wait_for
from terminal import on_terminal

from tmemfs.cli.commands import warm
from tmemfs.cli.main import main

# What main() imports when it is used, a process that drops its privileges may not find any more.
importlib.import_module("tmemfs.cli.commands.warm")

pytestmark = [
    pytest.mark.root,
    # What runs without privileges is a fork of this process, and uses no thread of it.
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

SIZES = {"file": 3 << 20, "tree/a": 100_000, "tree/deep/b": 1, "tree/c": 0, "tree/d": 8192}


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mounted]:
    source = tmp_path / "source"
    for name, size in SIZES.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(os.urandom(size))
    with mounted(source, tmp_path / "mount", "--budget=16M") as mount:
        yield mount


def test_what_is_warm_is_found(mount: Mounted) -> None:
    os.link(mount.source / "tree" / "a", mount.source / "tree" / "again")
    (mount.source / "tree" / "link").symlink_to("/etc/passwd")
    os.mkfifo(mount.source / "tree" / "fifo")
    outcome = run(*COMMAND, "warm", mount.path / "tree", mount.path / "file")
    assert outcome == Outcome(0, "5 files read, 3.1M\n", "")
    wait_for("all is in the pool", lambda: mount.pool("cache")["pages"] == 384 + 13 + 1 + 1)
    before = mount.pool("cache")
    for name in SIZES:
        assert (mount.path / name).read_bytes() == (mount.source / name).read_bytes()
    after = mount.pool("cache")
    asked = after["gets"] - before["gets"]
    assert asked >= 399, "the kernel had nothing"
    assert after["found_gets"] - before["found_gets"] == asked


def test_what_gave_way_is_told(mount: Mounted) -> None:
    (mount.source / "large").write_bytes(os.urandom(24 << 20))
    outcome = run(*COMMAND, "warm", "--jobs=2", mount.path / "large")
    first, second = outcome.out.splitlines()
    assert first == "1 file read, 24M"
    assert second.startswith(f"{mount.path}: full with 16M: ")
    assert second.endswith(" are kept")
    assert run(*COMMAND, "warm", "--quiet", mount.path / "large") == Outcome(0, "", "")


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with public_directory() as public:
        source = public / "source"
        (source / "closed").mkdir(parents=True)
        (source / "closed").chmod(0o700)
        for name in ("secret", "plain"):
            (source / name).write_text(name)
        (source / "secret").chmod(0o600)
        with mounted(source, public / "mount", "--budget=16M") as mount:
            outcome = as_nobody(lambda: main(["warm", str(mount.path)]))
    assert (outcome.code, outcome.out) == (1, "1 file read, 5B\n")
    assert sorted(outcome.err.splitlines()) == [
        f"tmemfs: {mount.path}/closed: Permission denied",
        f"tmemfs: {mount.path}/secret: Permission denied",
    ]


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["mount/none"], "{place}/mount/none: No such file or directory"),
        (["mount/file", "source/file"], "{place}/source/file: is not on a tmemfs mount"),
        (["mount/.tmemfs/budget"], "{place}/mount/.tmemfs/budget: is no file of {place}/source"),
        (["--jobs=0", "mount"], "--jobs: 0 is not from 1 to 256"),
    ],
)
def test_what_cannot_be_warmed(mount: Mounted, argv: list[str], says: str) -> None:
    place = mount.path.parent
    words = [word if word.startswith("-") else place / word for word in argv]
    outcome = run(*COMMAND, "warm", *words, code=2)
    assert outcome == Outcome(2, "", f"tmemfs: {says.format(place=place)}\n")
    assert mount.pool("cache")["pages"] == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_can_be_ended(mount: Mounted, number: signal.Signals) -> None:
    with open(mount.source / "endless", "wb") as file:
        file.truncate(1 << 40)
    command = subprocess.Popen(
        [*COMMAND, "warm", mount.path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        wait_for("it reads", lambda: mount.pool("cache")["good_puts"] > 1000)
        command.send_signal(number)
        out, err = command.communicate(timeout=SECONDS)
    finally:
        command.kill()
        command.wait()
    assert (command.returncode, out, err) == (8, "", "tmemfs: interrupted\n")


def test_a_bar_on_a_terminal(mount: Mounted) -> None:
    with on_terminal("warm", mount.path / "file", output=subprocess.PIPE) as (command, terminal):
        shown = terminal.until_closed()
        assert command.stdout is not None
        assert command.stdout.read() == "1 file read, 3M\n"
        assert command.wait(SECONDS) == 0
    assert "warming" in shown
    assert "3.0/3.0 MiB" in shown


def test_where_direct_reads_are_refused() -> None:
    """As by procfs: the file is opened all the same."""
    fd, direct = warm._open("/proc/version")
    os.close(fd)
    assert not direct
