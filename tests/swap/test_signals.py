"""A daemon is not ended by accident: signals are refused while a swap volume of its is in use."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from as_root import loop_on, tmpfs_at
from loop_swap import run as run_command
from loop_swap import swap_on, used_swap
from mounting import SECONDS, Mounted, mounted, wait_for
from page_data import run

from tmemfs.linux import system

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
                line = f"WARNING: {number.name} refused: swap volume s is in use; swapoff first"
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


def refuses(mount: Mounted) -> bool:
    """Whether the daemon refuses to end now."""
    before = mount.log().count("SIGTERM refused")
    mount.process.send_signal(signal.SIGTERM)
    wait_for(
        "SIGTERM is obeyed or refused",
        lambda: mount.log().count("SIGTERM refused") > before or mount.process.poll() is not None,
    )
    return mount.process.poll() is None


@contextmanager
def swap_by_device(file: Path) -> Iterator[str]:
    """Swap on `file` that is taken away by its device: the path of the file may have changed."""
    with loop_on(file) as device:
        run_command("mkswap", device)
        run_command("swapon", device)
        yield device


@pytest.mark.swap
@pytest.mark.parametrize("how", ["moved", "lazily unmounted", "renamed", "bound"])
def test_the_way_to_the_volume_does_not_matter(source: Path, tmp_path: Path, how: str) -> None:
    """The mount is somewhere else by now, or nowhere to be seen: what is swapped out is there."""
    options = ("--budget=16M", "--swap=s=16M")
    with tmpfs_at(tmp_path / "private") as private:
        run_command("mount", "--make-private", private)  # a shared one cannot be moved from
        (private / "above").mkdir()
        (private / "elsewhere").mkdir()
        with mounted(source, private / "above" / "m", *options, logs=True) as mount:
            file, elsewhere = mount.control / "swap" / "s", private / "elsewhere"
            if how == "bound":
                run_command("mount", "--bind", mount.path, elsewhere)
                file = elsewhere / ".tmemfs" / "swap" / "s"
            with swap_by_device(file) as device:
                if how == "moved":
                    run_command("mount", "--move", mount.path, elsewhere)
                elif how == "renamed":
                    (private / "above").rename(private / "renamed")
                else:
                    run_command("umount", "--lazy", mount.path)
                log = private / ("renamed" if how == "renamed" else "above") / "m.log"
                for count in (1, 2):
                    mount.process.send_signal(signal.SIGTERM)
                    wait_for(
                        "SIGTERM is refused",
                        lambda c=count: log.read_text().count("SIGTERM refused") == c,
                    )
                assert mount.process.poll() is None
                assert used_swap(device) is not None

            def obeys() -> bool:
                # The kernel lets go of the file in its own time.
                mount.process.send_signal(signal.SIGTERM)
                return mount.process.poll() is not None

            wait_for("it ends", obeys)
            assert mount.process.wait(SECONDS) == 0


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
