"""Errors outside of every handler: each costs one caller an EIO, and nobody else anything."""

import errno
import os
import subprocess
from pathlib import Path

import pytest
from mounting import SECONDS, Mounted, mounted, wait_for

from tmemfs.fuse import session
from tmemfs.linux import system
from tmemfs.linux.system import MountState

pytestmark = pytest.mark.root

# Run by the serving process: pyfuse3's own part of a request fails, at the moment that a file says.
FAULTS = """
from tmemfs.fuse import pyfuse3

before = pyfuse3.fuse_readlink_async

def undispatched(*args):
    if FAULT.read_text() == "undispatched":
        raise MemoryError("no handler yet")
    return failing(*args)

async def failing(*args):
    if FAULT.read_text() == "after":
        await before(*args)
    if FAULT.read_text() != "none":
        raise MemoryError("no handler any more")
    await before(*args)

pyfuse3.fuse_readlink_async = undispatched
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    made = tmp_path / "source"
    made.mkdir()
    (made / "link").symlink_to("target")
    (made / "f").write_text("content")
    return made


def errno_of_readlink(mount: Mounted) -> int:
    """In a process of its own, which can be ended if nobody ever answers."""
    program = (
        "import os, sys\ntry: os.readlink(sys.argv[1])\nexcept OSError as e: sys.exit(e.errno)"
    )
    command = ["python3", "-c", program, str(mount.path / "link")]
    return subprocess.run(command, check=False, timeout=SECONDS).returncode


@pytest.mark.parametrize("fault", ["undispatched", "unanswered", "after"])
def test_every_request_is_answered(source: Path, tmp_path: Path, fault: str) -> None:
    switch = tmp_path / "fault"
    switch.write_text("none")
    faults = f"from pathlib import Path\nFAULT = Path({str(switch)!r})\n{FAULTS}"
    with mounted(source, tmp_path / "m", "--budget=8M", before=faults, logs=True) as mount:
        assert errno_of_readlink(mount) == 0
        switch.write_text(fault)
        for count in range(1, 4):
            # What was answered before the error stays answered.
            assert errno_of_readlink(mount) == (0 if fault == "after" else errno.EIO)
            wait_for("noted", lambda c=count: mount.status()["failsafe"]["count"] == c)
            assert (mount.path / "f").read_text() == "content"
        assert "MemoryError: no handler" in mount.status()["failsafe"]["last"]
        assert "Traceback" in mount.log()
        switch.write_text("none")
        assert errno_of_readlink(mount) == 0


CRASH = """
import signal
import trio
from tmemfs import daemon

async def crash(*args):
    with trio.open_signal_receiver(signal.SIGUSR2) as signals:
        async for _ in signals:
            raise RuntimeError("the end")

before = daemon.session.serve

async def serve(bounds, lane):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(crash)
        await before(bounds, lane)

daemon.session.serve = serve
"""


def test_a_mount_whose_daemon_crashes_does_not_look_empty(source: Path, tmp_path: Path) -> None:
    import signal

    with mounted(source, tmp_path / "m", "--budget=8M", before=CRASH, logs=True) as mount:
        assert os.listdir(mount.path) == ["f", "link"]
        mount.process.send_signal(signal.SIGUSR2)
        assert mount.process.wait(SECONDS) != 0
        assert "RuntimeError: the end" in mount.log()
        assert system.probe(str(mount.path)) is MountState.STALE
        with pytest.raises(OSError, match="not connected") as caught:
            os.listdir(mount.path)
        assert caught.value.errno == errno.ENOTCONN


def test_a_mount_that_never_answered_is_taken_away_again(source: Path, tmp_path: Path) -> None:
    place = tmp_path / "m"
    broken = "from tmemfs import daemon\ndef fail(*_): raise RuntimeError('never')\n"
    broken += "daemon.system.raise_readahead = fail\n"
    with (
        pytest.raises(AssertionError, match="never"),
        mounted(source, place, "--budget=8M", before=broken),
    ):
        pass
    assert system.mount_at(str(place)) is None


NO_FLUSH = """
from tmemfs.cachefs.volume import CacheVolume

async def flush(self, file):
    raise ValueError("nobody was to ask")

CacheVolume.flush = flush
"""


@pytest.mark.skipif(session.extension is None, reason="without the extension")
def test_a_close_that_has_nothing_to_tell_is_not_asked_for(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "f").write_text("content")
    with mounted(source, tmp_path / "m", "--budget=8M", before=NO_FLUSH) as mount:
        assert (mount.path / "f").read_text() == "content"
        (mount.path / "new").write_text("new")
        assert (source / "new").read_text() == "new"
        with open(mount.path / "f", "rb") as file:  # and it can be read anywhere
            assert os.pread(file.fileno(), 3, 4) == b"ent"
            assert file.seek(0, os.SEEK_END) == 7
        assert mount.status()["failsafe"]["count"] == 0
