"""A source that has died below a living daemon is not taken for a daemon that has."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from faulty import over_faulty
from mounting import Mounted, wait_for
from posix_cases.runner import attempt

from tmemfs.linux import system

pytestmark = pytest.mark.root


def tmemfs(*words: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "tmemfs", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_commands_tell_the_one_from_the_other(tmp_path: Path) -> None:
    with over_faulty(tmp_path) as (backing, mount):
        (backing.under / "file").write_text("content")
        with open(mount.path / "file") as file:
            assert file.read() == "content"
            backing.kill()
            wait_for("it is dead", lambda: attempt(os.listdir, backing.path) == "ENOTCONN")
            assert attempt(os.listdir, mount.path) == "ENOTCONN"
            assert system.probe(str(mount.path)) is system.MountState.ALIVE
            assert tmemfs("status", mount.path).returncode == 0
            assert tmemfs("set", mount.path, "budget=32M").returncode == 0
            _is_busy(mount)
            again = tmemfs("mount", "/usr", mount.path, "-o", "budget=16M")
            assert again.returncode != 0, again.stderr
            assert len([m for m in system.read_mounts() if m.mountpoint == str(mount.path)]) == 1
        done = tmemfs("umount", mount.path)
        assert (done.returncode, done.stderr) == (0, "")
        assert mount.process.wait(60) == 0


def _is_busy(mount: Mounted) -> None:
    """It is in use, and is said to be, and who uses it."""
    refused = tmemfs("umount", mount.path)
    assert refused.returncode == 32
    assert "in use" in refused.stderr
    assert "stale" not in refused.stderr
    assert mount.process.poll() is None
    assert attempt(os.stat, mount.path / "nothing") in ("ENOTCONN", errno.ENOTCONN)
