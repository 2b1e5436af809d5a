"""The daemon is killed while files are written: what fsync acknowledged is in the directory."""

import errno
import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from mounting import mounted, wait_for

from tmemfs.linux import system
from tmemfs.linux.system import MountState

pytestmark = pytest.mark.root

WRITERS = 4
RECORD = 3000  # never a whole number of pages


def record(writer: int, number: int) -> bytes:
    text = b"writer %d record %d " % (writer, number)
    return (text * (RECORD // len(text) + 1))[:RECORD]


class Writer(threading.Thread):
    """Appends records to a file, each with an fsync, until the mount is gone."""

    def __init__(self, path: Path, number: int) -> None:
        super().__init__()
        self.path = path
        self.number = number
        self.acknowledged = 0
        self.error: OSError | None = None

    def run(self) -> None:
        try:
            with open(self.path, "xb", buffering=0) as file:
                while True:
                    file.write(record(self.number, self.acknowledged))
                    os.fsync(file.fileno())
                    self.acknowledged += 1
        except OSError as error:
            self.error = error


def test_what_was_acknowledged_is_there_after_a_kill(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    writers = [Writer(tmp_path / "m" / f"f{number}", number) for number in range(WRITERS)]
    with mounted(source, tmp_path / "m", "--budget=8M", "--swap=s=1M") as mount:
        for writer in writers:
            writer.start()
        wait_for("all write", lambda: all(writer.acknowledged > 20 for writer in writers))
        mount.kill()
        for writer in writers:
            writer.join(60)
            assert writer.error is not None
            assert writer.error.errno in (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO)
        for writer in writers:
            content = (source / f"f{writer.number}").read_bytes()
            for number in range(writer.acknowledged):
                start = number * RECORD
                assert content[start : start + RECORD] == record(writer.number, number)
            # At most the one that was under way is there as well, or a part of it.
            assert len(content) <= (writer.acknowledged + 1) * RECORD
        assert system.probe(str(mount.path)) is MountState.STALE
        assert system.mount_at(str(mount.path)) is not None
    assert system.mount_at(str(tmp_path / "m")) is None


def test_the_next_mount_clears_what_a_killed_daemon_left(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "f").write_text("content")
    with mounted(source, tmp_path / "m", "--budget=8M") as first:
        first.kill()
        with mounted(source, tmp_path / "m", "--budget=8M", logs=True) as second:
            assert (second.path / "f").read_text() == "content"
            assert "cleared away a stale mount" in second.log()


def test_ended_by_a_signal_while_in_use(tmp_path: Path) -> None:
    """SIGTERM ends a mount in order even if files are open; what was written is there."""
    source = tmp_path / "source"
    source.mkdir()
    with mounted(source, tmp_path / "m", "--budget=8M") as mount:
        fd = os.open(mount.path / "f", os.O_CREAT | os.O_WRONLY)
        os.write(fd, b"written")
        mount.process.terminate()
        assert mount.process.wait(60) == 0
        assert system.mount_at(str(mount.path)) is None
        assert (source / "f").read_bytes() == b"written"
        with pytest.raises(OSError, match="not connected"):
            os.write(fd, b"too late")
        with suppress(OSError):
            os.close(fd)
