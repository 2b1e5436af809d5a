"""The demo, as `make demo` runs it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import slow_directory
from command import environment

from tmemfs.linux.system import read_mounts

DEMO = Path(slow_directory.__file__).parent / "demo.py"


def demo(*words: str) -> str:
    """What it prints."""
    done = subprocess.run(
        [sys.executable, DEMO, *words],
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def left_over() -> list[str]:
    return [mount.mountpoint for mount in read_mounts() if "tmemfs-demo-" in mount.mountpoint]


@pytest.mark.root
@pytest.mark.swap
def test_a_slow_directory_is_fast_the_second_time() -> None:
    if reason := slow_directory.lacking():
        pytest.skip(reason)
    said = demo("--budget", "128M")
    assert "Every byte was the same as in the source, both times." in said
    [times] = re.findall(r"The second time was ([\d.]+) times as fast", said)
    assert float(times) > 1
    assert said.count("pages, 0 wrong") == 4
    assert not left_over()


@pytest.mark.root
@pytest.mark.swap
def test_a_directory_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content" * 10_000)
    said = demo("--budget", "64M", "--source", str(tmp_path))
    assert "1 files, " in said
    assert f"{tmp_path} is mounted on " in said
    assert not left_over()
