"""fallocate(1) on files of a mount, and a mount that cannot offer it."""

import errno
import os
import subprocess
from pathlib import Path

import pytest
from mounting import Mounted, mounted, wait_for
from page_data import run

from tmemfs.linux.syscalls import FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, fallocate

pytestmark = pytest.mark.root

MISSING = "import sys\nsys.modules['tmemfs.fuse._session'] = None\n"
HOLE = FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE


def tool(file: Path, *options: str) -> str:
    """What fallocate(1) complains of, but for the name of the file."""
    command = ["fallocate", *options, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr.replace(str(file), "FILE")


def refusal(file: Path, mode: int, offset: int, length: int) -> str | None:
    """The name of the errno with which the system call fails, None when it does not."""
    with open(file, "r+b") as opened:
        try:
            fallocate(opened.fileno(), mode, offset, length)
        except OSError as error:
            return errno.errorcode[error.errno or 0]
    return None


def test_the_tool_does_the_same_as_on_a_bare_file(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    content = run(1, 30) + b"an end"
    with mounted(tmp_path / "source", tmp_path / "m", "--budget=16M") as mount:
        assert mount.status()["discard"] is True
        for options in (
            ["--punch-hole", "--offset=5000", "--length=70000"],
            ["--zero-range", "--offset=90000", "--length=100000"],
            ["--zero-range", "--keep-size", "--offset=100", "--length=1000000"],
            ["--length=500000"],
            ["--keep-size", "--length=900000"],
        ):
            for file in (tmp_path / "bare", mount.path / "f"):
                file.write_bytes(content)
                assert file.read_bytes() == content
                assert tool(file, *options) == ""
            bare, ours = os.stat(tmp_path / "bare"), os.stat(mount.path / "f")
            assert (ours.st_size, ours.st_blocks) == (bare.st_size, bare.st_blocks), options
            assert (mount.path / "f").read_bytes() == (tmp_path / "bare").read_bytes()
            assert (mount.source / "f").read_bytes() == (tmp_path / "bare").read_bytes()
        for move in ("--collapse-range", "--insert-range"):
            assert "not supported" in tool(mount.path / "f", move, "--length=4096")
        assert refusal(mount.control / "budget", 0, 0, 10) == "ENOTSUP"
        assert mount.status()["failsafe"]["count"] == 0


def test_a_swap_volume_is_a_file_of_fixed_size(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    size = 4 << 20
    with mounted(tmp_path / "source", tmp_path / "m", "--budget=16M", f"--swap=s={size}") as mount:
        file = mount.control / "swap" / "s"
        with open(file, "r+b", buffering=0) as opened:
            os.pwrite(opened.fileno(), run(1, 100), 0)
        assert tool(file, "--punch-hole", "--offset=4000", "--length=200000") == ""
        want = run(1, 100)[:4000] + bytes(200_000) + run(1, 100)[204_000:]
        assert file.read_bytes() == want.ljust(size, b"\0")
        # What was written is acknowledged before it is there.
        wait_for("it is there", lambda: mount.pool("s")["pages"] == 100 - 48)
        assert tool(file, f"--length={size}") == ""
        assert refusal(file, 0, 0, size + 1) == "ENOSPC"
        assert refusal(file, FALLOC_KEEP_SIZE, 0, size + 1) == "ENOSPC"
        assert refusal(file, HOLE, 0, 2 * size) is None
        assert mount.pool("s")["pages"] == 0
        assert file.stat().st_size == size


def _told(mount: Mounted) -> int:
    return mount.log().count("no discard: ")


def test_without_the_extension_it_mounts_and_says_so_once(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    options = ("--budget=16M", "--swap=s=4M")
    with mounted(tmp_path / "source", tmp_path / "m", *options, before=MISSING, logs=True) as mount:
        assert mount.status()["discard"] is False
        (mount.path / "f").write_bytes(run(1, 3))
        for file in (mount.path / "f", mount.control / "swap" / "s"):
            for mode in (0, HOLE):
                assert refusal(file, mode, 0, 4096) == "ENOTSUP"
        assert (mount.path / "f").read_bytes() == run(1, 3)
        assert _told(mount) == 1
    assert _told(mount) == 1


def test_without_the_extension_a_mount_without_swap_has_nothing_to_say(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    with mounted(tmp_path / "source", tmp_path / "m", "--budget=16M", before=MISSING) as mount:
        assert mount.status()["discard"] is False


@pytest.mark.parametrize(
    ("how", "logged"),
    [
        ("@handler\nasync def fallocate(*_): 1 / 0", "ZeroDivisionError"),
        ("fallocate = None", "TypeError"),
    ],
    ids=["in the handler", "before it"],
)
def test_a_mistake_costs_its_caller_an_eio(tmp_path: Path, how: str, logged: str) -> None:
    wrong = f"""
from tmemfs.fuse.failsafe import handler
from tmemfs.fuse.operations import Operations
{how}
Operations.fallocate = fallocate
"""
    (tmp_path / "source").mkdir()
    options = {"before": wrong, "logs": True}
    with mounted(tmp_path / "source", tmp_path / "m", "--budget=16M", **options) as mount:
        (mount.path / "f").write_bytes(run(1, 3))
        for _ in range(3):
            assert refusal(mount.path / "f", HOLE, 0, 4096) == "EIO"
        assert (mount.path / "f").read_bytes() == run(1, 3)
        assert logged in mount.log()
