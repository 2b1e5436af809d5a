"""What is done with names on a mount while somebody reads swap of it."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

IDLE = "idle"
_AT_ONCE = 16


@dataclass(frozen=True)
class Sizes:
    """Names in the large directory, files in the tree, and seconds of waiting."""

    names: int
    files: int
    seconds: float


@dataclass(frozen=True)
class Load:
    """*run* does it in the mounted directory; *prepare* makes what it needs in the source."""

    name: str
    run: Callable[[Path], None]
    prepare: Callable[[Path], None] = lambda source: None


def make_source(source: Path, sizes: Sizes) -> None:
    """Fill the empty directory *source*: many names, a tree, and where to mount what gets stuck."""
    (source / "stuck").mkdir()
    (source / "many").mkdir()
    for number in range(sizes.names):
        os.mknod(source / "many" / f"name{number}")
    _make_tree(source / "tree", sizes.files)


def loads(sizes: Sizes, stuck: subprocess.Popen[bytes]) -> list[Load]:
    """All of them, idleness first. *stuck* serves what is mounted on ``stuck`` of the source."""
    doomed = "doomed"
    return [
        Load(IDLE, lambda _: time.sleep(sizes.seconds)),
        Load("ls -lR", lambda mount: _run("ls", "-lR", mount / "tree")),
        Load("find", lambda mount: _run_for(sizes.seconds, "find", mount / "tree", "-newer", "/")),
        Load("tar", lambda mount: _run("tar", "-cf", "/dev/zero", "-C", mount, "tree")),
        Load(
            "rm -r",
            lambda mount: _run("rm", "-r", mount / doomed),
            lambda source: _make_tree(source / doomed, sizes.files),
        ),
        Load(f"ls -U of {sizes.names} names", lambda mount: _run("ls", "-U", mount / "many")),
        Load(
            f"{_AT_ONCE} ls -lR at once",
            lambda mount: _run_all(_AT_ONCE, "ls", "-lR", mount / "tree"),
        ),
        Load("no answer", lambda mount: _wait_in_vain(mount, stuck, sizes.seconds)),
    ]


def _make_tree(place: Path, files: int) -> None:
    """Make directories of 50 files each, one in the other by fives."""
    directory = place
    for number in range(files):
        if number % 50 == 0:
            directory = (directory if number % 250 else place) / f"directory{number}"
            directory.mkdir(parents=True)
        (directory / f"file{number}").write_bytes(b"some bytes")


def _run(*command: str | Path) -> None:
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)


def _run_for(seconds: float, *command: str | Path) -> None:
    """Run a command that takes little time again and again: few reads have no percentiles."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        _run(*command)


def _run_all(count: int, *command: str | Path) -> None:
    running = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(count)]
    for process in running:
        if process.wait():
            raise OSError(f"{command[0]} failed")


def _wait_in_vain(mount: Path, stuck: subprocess.Popen[bytes], seconds: float) -> None:
    """Let some wait for names in ``stuck``, whose server is stopped for so many *seconds*."""
    stuck.send_signal(signal.SIGSTOP)
    waiting = []
    try:
        for number in range(_AT_ONCE):
            command: list[str | Path] = ["stat", mount / "stuck" / f"name{number}"]
            silent = subprocess.DEVNULL
            waiting.append(subprocess.Popen(command, stdout=silent, stderr=silent))
        time.sleep(seconds)
    finally:
        stuck.send_signal(signal.SIGCONT)
        for process in waiting:
            process.wait()


def lacking() -> str | None:
    """Why this cannot be measured here; None where it can."""
    if os.geteuid() != 0:
        return "needs root, who alone may look through two mounts of which one is below the other"
    return None if shutil.which("tar") else "no tar"
