"""The record of what was read."""

import os
import stat
from pathlib import Path

import pytest

from tmemfs.cachefs.trace import Trace


def test_a_read_a_line_and_files_by_number(tmp_path: Path) -> None:
    trace = Trace(str(tmp_path / "t"), 8192)
    for read in ((1 << 150, 0, 1), (7, 5, 16), (1 << 150, 1, 1)):
        trace.note(*read)
    trace.close()
    lines = (tmp_path / "t").read_text().splitlines()
    assert lines == ["# tmemfs trace, pages of 8192 bytes", "0 0", "1 5 16", "0 1"]


@pytest.mark.expects_log("the trace ends here")
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_ends_the_record_and_nothing_else() -> None:
    trace = Trace("/dev/full", 4096)
    for index in range(300_000):
        trace.note(1, index, 1)
    trace.close()


def test_it_is_nobody_elses(tmp_path: Path) -> None:
    """Made for its owner only, and neither through a link nor over another's file."""
    Trace(str(tmp_path / "new"), 4096).close()
    assert stat.S_IMODE(os.stat(tmp_path / "new").st_mode) == 0o600
    victim = tmp_path / "victim"
    victim.write_text("precious")
    os.symlink(victim, tmp_path / "link")
    os.link(victim, tmp_path / "hard")
    for name in ("link", "hard"):
        with pytest.raises(PermissionError):
            Trace(str(tmp_path / name), 4096)
    assert victim.read_text() == "precious"
    old = tmp_path / "old"
    old.write_text("an older one, and longer than what is written now")
    old.chmod(0o666)
    Trace(str(old), 4096).close()
    assert stat.S_IMODE(os.stat(old).st_mode) == 0o600
    assert old.read_text() == "# tmemfs trace, pages of 4096 bytes\n"
