"""A daemon is not ended by accident: signals are refused while swap is on a file of its mount."""

import os
import signal
from pathlib import Path

import pytest
from loop_swap import swap_on, used_swap
from mounting import SECONDS, Mounted, mounted, wait_for
from page_data import run

from tmemfs import system

pytestmark = pytest.mark.root

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
IGNORE_HANGUPS = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"


def check_answers(mount: Mounted) -> None:
    assert mount.status()["failsafe"]["count"] == 0
    assert (mount.path / "f").read_bytes() == run(1, 10)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    made = tmp_path / "source"
    made.mkdir()
    (made / "f").write_bytes(run(1, 10))
    return made


@pytest.mark.swap
def test_refused_while_swap_is_on_and_obeyed_after(source: Path, tmp_path: Path) -> None:
    options = ("--budget=16M", "--swap=s=16M", "--swap=other=16M")
    with mounted(source, tmp_path / "m", *options, logs=True) as mount:
        with swap_on(mount.control / "swap" / "s") as device:
            for number in SIGNALS:
                mount.process.send_signal(number)
                line = f"WARNING: {number.name} refused: {device} is swap on this mount"
                wait_for(f"{number.name} is refused", lambda line=line: line in mount.log())
                check_answers(mount)
                assert used_swap(device) is not None
            # Said once each, and nothing else.
            assert mount.log().count("refused") == len(SIGNALS)
            assert "ending" not in mount.log()
        mount.process.send_signal(signal.SIGINT)
        assert mount.process.wait(SECONDS) == 0
        assert "INFO: ending on SIGINT" in mount.log()
        assert system.mount_at(str(mount.path)) is None


@pytest.mark.swap
def test_swap_on_another_mount_does_not_matter(source: Path, tmp_path: Path) -> None:
    options = ("--budget=16M", "--swap=s=16M")
    with (
        mounted(source, tmp_path / "m", *options) as with_swap,
        mounted(source, tmp_path / "m2", *options) as mount,
        swap_on(with_swap.control / "swap" / "s"),
    ):
        mount.process.terminate()
        assert mount.process.wait(SECONDS) == 0
        check_answers(with_swap)


@pytest.mark.parametrize("number", SIGNALS)
def test_each_ends_a_mount_in_order(number: signal.Signals, source: Path, tmp_path: Path) -> None:
    with mounted(source, tmp_path / "m", "--budget=8M") as mount:
        mount.process.send_signal(number)
        assert mount.process.wait(SECONDS) == 0
        assert f"ending on {number.name}" in mount.log()
        assert system.mount_at(str(mount.path)) is None


def test_a_hangup_that_is_to_be_ignored_is(source: Path, tmp_path: Path) -> None:
    with mounted(source, tmp_path / "m", "--budget=8M", before=IGNORE_HANGUPS) as mount:
        os.kill(mount.process.pid, signal.SIGHUP)
        check_answers(mount)
        mount.process.terminate()
        assert mount.process.wait(SECONDS) == 0
        assert "SIGHUP" not in mount.log()
