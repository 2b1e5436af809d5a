"""The filesystems that are measured, each mounted for as long as its context lasts."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
READY_SECONDS = 20.0


@contextmanager
def null_pyfuse3(file: Path, mountpoint: Path) -> Iterator[Path]:
    """The do-nothing filesystem in Python; yields the file in it."""
    with _mounted([sys.executable, HERE / "null_pyfuse3.py", file, mountpoint], mountpoint):
        yield mountpoint / "data"


@contextmanager
def null_c(file: Path, mountpoint: Path) -> Iterator[Path]:
    """The do-nothing filesystem in C; yields the file in it. See `compile_null_c`."""
    with _mounted([mountpoint.parent / "null_fuse", file, mountpoint], mountpoint):
        yield mountpoint / "data"


def compile_null_c(directory: Path) -> str | None:
    """Make `null_fuse` in *directory*; the reason where that cannot be done here."""
    compiler = shutil.which("cc")
    if compiler is None or shutil.which("pkg-config") is None:
        return "no C compiler or no pkg-config"
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "fuse3"], check=False, capture_output=True, text=True
    )
    if flags.returncode:
        return "no libfuse3 headers"
    target = directory / "null_fuse"
    subprocess.run(
        [compiler, "-O2", "-o", target, HERE / "null_fuse.c", *flags.stdout.split()], check=True
    )
    return None


@contextmanager
def tmemfs(
    source: Path, mountpoint: Path, *, budget: int, page_size: int, options: Sequence[str] = ()
) -> Iterator[Path]:
    """tmemfs on the directory *source*, through the real command; yields the mount point."""
    sizes = [f"--budget={budget}", f"--page-size={page_size}"]
    command = [sys.executable, "-m", "tmemfs", "mount", str(source), str(mountpoint), "-f"]
    with _mounted([*command, *sizes, *options], mountpoint):
        yield mountpoint


def status(mountpoint: Path) -> dict[str, Any]:
    """What tmemfs says of itself: memory, pools, reclaim."""
    found: dict[str, Any] = json.loads((mountpoint / ".tmemfs" / "status.json").read_bytes())
    return found


@contextmanager
def _mounted(command: Sequence[str | Path], mountpoint: Path) -> Iterator[None]:
    mountpoint.mkdir(exist_ok=True)
    server = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        deadline = time.monotonic() + READY_SECONDS
        while not os.path.ismount(mountpoint):
            if server.poll() is not None or time.monotonic() > deadline:
                raise OSError(f"no mount by: {' '.join(map(str, command))}")
            time.sleep(0.02)
        yield
    finally:
        _unmount(server, mountpoint)


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
