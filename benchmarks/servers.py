"""The filesystems that are measured, each mounted for as long as its context lasts."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.compiler import compile_c

HERE = Path(__file__).parent
READY_SECONDS = 20.0


def lacking(*programs: str) -> str | None:
    """Which of *programs* cannot be had here; None where all can."""
    missing = [program for program in programs if shutil.which(program) is None]
    return f"no {' and no '.join(missing)}" if missing else None


@contextmanager
def null_pyfuse3(
    file: Path, mountpoint: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Path]:
    """The do-nothing filesystem in Python; yields the file in it."""
    with mounted(null_pyfuse3_command(file, mountpoint), mountpoint, environment):
        yield mountpoint / "data"


def null_pyfuse3_command(file: Path, mountpoint: Path) -> list[str | Path]:
    """What serves *file* at *mountpoint* with the do-nothing filesystem in Python."""
    return [sys.executable, HERE / "null_pyfuse3.py", file, mountpoint]


@contextmanager
def null_c(
    file: Path, mountpoint: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Path]:
    """The do-nothing filesystem in C; yields the file in it. See `compile_null_c`."""
    command = [mountpoint.parent / "null_fuse", file, mountpoint]
    with mounted(command, mountpoint, environment):
        yield mountpoint / "data"


def compile_null_c(directory: Path) -> str | None:
    """Make `null_fuse` in *directory*; the reason where that cannot be done here."""
    try:
        compile_c(HERE / "null_fuse.c", directory / "null_fuse", package="fuse3")
    except OSError as error:
        return str(error)
    return None


@contextmanager
def tmemfs(
    source: Path, mountpoint: Path, *, budget: int, page_size: int, options: Sequence[str] = ()
) -> Iterator[Path]:
    """tmemfs on the directory *source*, through the real command; yields the mount point."""
    sizes = [f"--budget={budget}", f"--page-size={page_size}"]
    command = [sys.executable, "-m", "tmemfs", "mount", str(source), str(mountpoint), "-f"]
    with mounted([*command, *sizes, *options], mountpoint):
        yield mountpoint


def status(mountpoint: Path) -> dict[str, Any]:
    """What tmemfs says of itself: memory, pools, reclaim."""
    found: dict[str, Any] = json.loads((mountpoint / ".tmemfs" / "status.json").read_bytes())
    return found


@contextmanager
def mounted(
    command: Sequence[str | Path],
    mountpoint: Path,
    environment: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """What *command*, which stays in the foreground, mounts at *mountpoint*; yields its process.

    *environment* is added to that of this process.
    """
    mountpoint.mkdir(exist_ok=True)
    said = tempfile.TemporaryFile()  # noqa: SIM115, closed when the server has ended
    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=said,
        env={**os.environ, **(environment or {})},
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + READY_SECONDS
        while not os.path.ismount(mountpoint):
            if server.poll() is not None or time.monotonic() > deadline:
                raise OSError(f"no mount by: {' '.join(map(str, command))}")
            time.sleep(0.02)
        yield server
    finally:
        _unmount(server, mountpoint)
        with said:
            said.seek(0)
            # What is for the information of somebody else would tear the tables apart.
            lines = [line for line in said.read().decode().splitlines() if ": INFO: " not in line]
            print(*lines, sep="\n", end="\n" if lines else "", file=sys.stderr)


def _unmount(server: subprocess.Popen[bytes], mountpoint: Path) -> None:
    # root may be in a place without fusermount3, others may not call umount.
    unmount = ["umount"] if os.geteuid() == 0 else ["fusermount3", "-u"]
    if os.path.ismount(mountpoint):
        subprocess.run([*unmount, mountpoint], check=False)
    try:
        server.wait(timeout=10)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
        subprocess.run([*unmount, mountpoint], check=False, stderr=subprocess.DEVNULL)
