"""A directory that is slow: one of this machine, through sshfs and a delayed SFTP server."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import servers
from benchmarks.cache import slow_sftp

ROUND_TRIP = 0.005
"""Seconds from a request to its answer, which nothing but the distance takes."""


@dataclass(frozen=True)
class Slow:
    """The directory, and what has been asked of its server so far."""

    path: Path
    counts: slow_sftp.Counts

    def requests(self) -> int:
        """The number of all requests of SFTP."""
        return sum(self.counts.now().values())


def lacking() -> str | None:
    """Why there can be no slow directory here; None where there can."""
    if reason := servers.lacking("sshfs"):
        return reason
    return None if slow_sftp.server() else "no sftp-server (openssh-sftp-server)"


@contextmanager
def slow_directory(source: Path, place: Path) -> Iterator[Slow]:
    """Show *source* as a directory in *place*, an existing one, with the delay.

    sshfs has the options that it comes with. It is new, so that it knows no names or attributes
    yet; those it keeps for 20 seconds.
    """
    counts = place / "requests"
    ssh = place / "ssh"
    ssh.write_text(
        f"#!/bin/sh\nexec '{sys.executable}' '{slow_sftp.__file__}' {ROUND_TRIP / 2} '{counts}'\n"
    )
    ssh.chmod(0o755)
    mountpoint = place / "slow"
    command = ["sshfs", "-f", f"far-away:{source}", str(mountpoint), "-o", f"ssh_command={ssh}"]
    with servers.mounted(command, mountpoint):
        yield Slow(mountpoint, slow_sftp.Counts(counts))
    counts.unlink()
