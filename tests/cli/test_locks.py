"""One command at a time is at work at a mountpoint, whoever holds it, and however that ends."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command import environment
from mounting import wait_for

from tmemfs.cli.system import locks
from tmemfs.cli.system.locks import locked
from tmemfs.errors import MountFailure, NotPermitted


# Of a user: root's place stays when the last lock there is gone.
@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the locks are."""
    place = tmp_path / "place"
    monkeypatch.setattr(locks, "_places", lambda: iter([str(place)]))
    return place


@contextmanager
def holder(place: Path, mountpoint: str, then: str = "sys.stdin.read()") -> Iterator[str]:
    """Another process that has the lock, and does something with it."""
    script = f"""
        import os, subprocess, sys
        from tmemfs.cli.system import locks
        locks._places = lambda: iter([{str(place)!r}])
        with locks.locked({mountpoint!r}):
            print("locked", flush=True)
            {then}
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_lock_leaves_nothing_behind(place: Path) -> None:
    with locked("/m"):
        assert len(os.listdir(place)) == 1
    assert not place.exists()


def test_another_mountpoint_is_another_lock(place: Path) -> None:
    with holder(place, "/m"), locked("/m/n"):
        assert len(os.listdir(place)) == 2


def test_who_holds_it_is_waited_for(place: Path) -> None:
    with holder(place, "/m", "sys.stdin.readline()") as process:
        process.stdin.write("\n")
        process.stdin.flush()
        with locked("/m"):
            process.wait(60)
    assert not place.exists()


def test_who_holds_it_for_too_long_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "WAIT_SECONDS", 0.1)
    with holder(place, "/m") as process, pytest.raises(MountFailure) as caught, locked("/m"):
        pass
    assert str(caught.value) == (
        f"/m: process {process.pid} (tmemfs) is at work there, and was not done within 0.1 seconds"
    )


def test_it_ends_with_its_holder(place: Path) -> None:
    with holder(place, "/m") as process:
        process.kill()
        process.wait(60)
        with locked("/m"):
            pass
    assert not place.exists()


@pytest.mark.parametrize(
    "then", ["if os.fork() == 0: sys.stdin.read()", "subprocess.Popen(['cat'])"]
)
def test_what_its_holder_leaves_running_has_it_not(place: Path, then: str) -> None:
    """A holder that was killed, too, could not have given it back for them."""
    with holder(place, "/m", f"{then}\n            os.kill(os.getpid(), 9)") as process:
        process.wait(60)
        with locked("/m"):
            pass


def test_it_is_taken_twice_by_one_process(place: Path) -> None:
    with locked("/m") as one:
        with locked("/m") as again:
            assert again is one
        assert place.exists()
        one.release()
        assert not place.exists()
        with holder(place, "/m"):
            one.release()


def test_those_who_come_and_go_find_it_where_it_is(place: Path) -> None:
    """Its file and its directory are removed under those who are about to open it."""
    program = f"""
        import os, sys
        from tmemfs.cli.system import locks
        locks._places = lambda: iter([{str(place)!r}])
        for _ in range(50):
            with locks.locked("/m"):
                fd = os.open({str(place) + "-inside"!r}, os.O_CREAT | os.O_EXCL)
                os.close(fd)
                os.unlink({str(place) + "-inside"!r})
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    children = [subprocess.Popen(command, env=environment()) for _ in range(4)]
    assert [child.wait(60) for child in children] == [0] * 4
    assert not place.exists()


# --- whose directory -------------------------------------------------------------------------


def test_a_directory_that_others_may_write_to(place: Path) -> None:
    place.mkdir()
    place.chmod(0o777)
    with pytest.raises(NotPermitted, match="is no directory of yours alone"), locked("/m"):
        pass
    assert os.listdir(place) == []


def test_a_link_to_a_directory(place: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir(0o755)
    place.symlink_to(tmp_path / "other")
    with pytest.raises(NotPermitted, match="is no directory of yours alone"), locked("/m"):
        pass
    assert os.listdir(tmp_path / "other") == []


@pytest.mark.root
def test_a_directory_of_somebody_else(place: Path) -> None:
    place.mkdir(0o755)
    os.chown(place, 65534, 65534)
    with pytest.raises(NotPermitted, match="is no directory of yours alone"), locked("/m"):
        pass


def test_a_lock_that_is_a_link(place: Path, tmp_path: Path) -> None:
    with locked("/m"):
        (name,) = os.listdir(place)
    place.mkdir(0o755)
    (place / name).symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic links"), locked("/m"):
        pass
    assert not (tmp_path / "target").exists()


def test_where_a_user_has_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    own = ["/run/user/1000/tmemfs", "/tmp/tmemfs-1000"]
    assert list(locks._places()) == [f"{tmp_path}/tmemfs", *own]
    monkeypatch.setenv("XDG_RUNTIME_DIR", "relative")
    assert list(locks._places()) == own
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert next(locks._places()) == "/run/tmemfs"


def test_a_place_that_cannot_be_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, place: Path, tmp_path: Path
) -> None:
    places = [f"{tmp_path}/none/tmemfs", "/proc/tmemfs", str(place)]
    monkeypatch.setattr(locks, "_places", lambda: iter(places))
    with locked("/m"):
        wait_for("the lock is there", place.exists)
