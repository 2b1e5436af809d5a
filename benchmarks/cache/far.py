"""A directory that is far away: one of this machine, through sshfs and a delayed SFTP server."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import slow_sftp

from benchmarks import servers
from benchmarks.cache.slow import Kind, Slow

ROUND_TRIP = 0.005
"""Seconds from a request to its answer, which nothing but the distance takes."""


def _lacking() -> str | None:
    if reason := servers.lacking("sshfs"):
        return reason
    return None if slow_sftp.server() else "no sftp-server (openssh-sftp-server)"


@contextmanager
def _in_memory(place: Path) -> Iterator[Path]:
    """A filesystem that has no disk to wait for, and that dropping of caches leaves alone."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


@contextmanager
def _directory(store: Path, place: Path) -> Iterator[Slow]:
    """A new sshfs, so that it knows no names or attributes yet: it keeps them for 20 seconds."""
    counts = slow_sftp.Counts(place / "requests")
    ssh = place / "ssh"
    server = f"exec '{sys.executable}' '{slow_sftp.__file__}' {ROUND_TRIP / 2} '{counts.file}'\n"
    ssh.write_text(f"#!/bin/sh\n{server}")
    ssh.chmod(0o755)
    mountpoint = place / "slow"
    command = ["sshfs", "-f", f"far-away:{store}", str(mountpoint), "-o", f"ssh_command={ssh}"]
    with servers.mounted(command, mountpoint):
        yield Slow(mountpoint, lambda: sum(counts.now().values()))


FAR = Kind(
    f"The slow directory is sshfs, with the options that it comes with, over an SFTP server of this"
    f" machine, {ROUND_TRIP * 1e3:g} ms for a round trip.",
    "SFTP requests",
    _lacking,
    _in_memory,
    _directory,
)
