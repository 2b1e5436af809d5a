"""A slow directory: one of this machine, seen through sshfs and an SFTP server that answers late.

    with slow_directory(Path("/srv/files"), Path("/mnt/slow")) as slow:
        ...

Needs sshfs and OpenSSH's sftp-server; no network, no ssh key and no running sshd.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import slow_sftp
from loop_swap import run

ROUND_TRIP = 0.005
"""Seconds that the server adds to every answer."""
READY_SECONDS = 20.0
END_SECONDS = 10.0


@dataclass(frozen=True)
class SlowDirectory:
    """Where the directory is mounted, and how many SFTP requests the server got so far."""

    path: Path
    requests: Callable[[], int]


def lacking() -> str | None:
    """What is missing for it here and how to get it, in one line; None where nothing is."""
    missing = [program for program in ("sshfs", "fusermount3") if shutil.which(program) is None]
    missing += [] if slow_sftp.server() else ["sftp-server"]
    if not missing:
        return None
    return (
        f"no {' and no '.join(missing)}; on Debian and Ubuntu:"
        " apt-get install sshfs openssh-client openssh-sftp-server"
    )


@contextmanager
def slow_directory(store: Path, mountpoint: Path) -> Iterator[SlowDirectory]:
    """Mount *store* with sshfs on the empty directory *mountpoint* until the context ends.

    Each mount has a server of its own and starts without cached names and attributes.
    Raises OSError with what sshfs wrote when there is no mount.
    """
    with tempfile.TemporaryDirectory(prefix=f"{mountpoint.name}-", dir=mountpoint.parent) as place:
        counts = slow_sftp.Counts(Path(place, "requests"))
        # sshfs starts what it takes for ssh. In a file, because it splits the option at spaces.
        script = Path(place, "ssh")
        server = [sys.executable, slow_sftp.__file__, f"{ROUND_TRIP / 2}", str(counts.file)]
        script.write_text(f"#!/bin/sh\nexec {shlex.join(server)}\n")
        script.chmod(0o755)
        command = ["sshfs", "-f", f"far-away:{store}", mountpoint, "-o", f"ssh_command={script}"]
        with tempfile.TemporaryFile() as said:
            # A session of its own keeps the terminal's Ctrl-C away from it.
            sshfs = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                deadline = time.monotonic() + READY_SECONDS
                while not os.path.ismount(mountpoint):
                    if sshfs.poll() is not None or time.monotonic() > deadline:
                        said.seek(0)
                        reason = " ".join(said.read().decode(errors="replace").split())
                        raise OSError(f"sshfs made no mount: {reason or 'it does not answer'}")
                    time.sleep(0.02)
                yield SlowDirectory(mountpoint, lambda: sum(counts.now().values()))
            finally:
                try:
                    unmount(mountpoint)
                finally:
                    _end(sshfs)


def unmount(mountpoint: Path) -> None:
    """Take away the mount of sshfs at *mountpoint*, if there is one; its process ends by that."""
    if str(mountpoint) in _mountpoints():
        # root may be in a place without fusermount3; others may not call umount.
        command = ["umount", "--lazy"] if os.geteuid() == 0 else ["fusermount3", "-uz"]
        run(*command, mountpoint)


def _mountpoints() -> list[str]:
    """All of them, also those that do not answer a stat any more."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line.split()[1].replace("\\040", " ") for line in lines]


def _end(sshfs: "subprocess.Popen[bytes]") -> None:
    try:
        sshfs.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        sshfs.kill()
        sshfs.wait()
