"""What systemd is told: one datagram a message, to a path or to an abstract name."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mounting import SECONDS, mounted

from tmemfs.linux.notify import notify


@contextmanager
def listener(address: str) -> Iterator[socket.socket]:
    """A manager that listens at `address`, as systemd does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(address)
        made.settimeout(SECONDS)
        yield made


def test_to_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with listener(str(tmp_path / "notify")) as manager:
        assert notify("READY=1", "STATUS=serving")
        assert manager.recv(4096) == b"READY=1\nSTATUS=serving"


def test_to_an_abstract_name(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"tmemfs-test-{os.getpid()}"
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
    with listener(f"\0{name}") as manager:
        assert notify("STOPPING=1")
        assert manager.recv(4096) == b"STOPPING=1"


@pytest.mark.parametrize("address", [None, "", "vsock:2:1", "/nowhere/at/all"])
def test_nobody_listens(address: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not notify("READY=1")


@pytest.mark.root
def test_a_mount_in_the_foreground_says_when_it_serves_and_when_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with (
        listener(str(tmp_path / "notify")) as manager,
        mounted(source, tmp_path / "m", "--budget=8M") as mount,
    ):
        lines = manager.recv(4096).decode().splitlines()
        assert lines == ["READY=1", f"STATUS=serving {mount.path}"]
        assert mount.path.is_mount()
        mount.process.terminate()
        assert manager.recv(4096) == b"STOPPING=1"
        assert mount.process.wait(SECONDS) == 0
