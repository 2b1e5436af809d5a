"""Opening an overflow file or device: all its space is there, and nothing else is lost for it."""

import os
import stat
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from page_data import run

from tmemfs.errors import MountFailure, NotPermitted, TmemfsError
from tmemfs.swap.slots import FIRST, SLOT, open_slots

SLOTS = 1000
SIZE = FIRST + SLOTS * SLOT

root = pytest.mark.root


def open_and_close(path: Path, slots: int = SLOTS) -> None:
    os.close(open_slots(str(path), slots))


def refused(path: Path, why: str, slots: int = SLOTS) -> str:
    with pytest.raises(TmemfsError, match=why) as caught:
        open_slots(str(path), slots)
    assert str(path) in str(caught.value)
    return str(caught.value)


# --- a file --------------------------------------------------------------------------------------


def test_a_new_file_is_its_owners_alone_and_has_all_its_space(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        open_and_close(tmp_path / "f")
    finally:
        os.umask(before)
    info = os.stat(tmp_path / "f")
    assert stat.S_IMODE(info.st_mode) == 0o600
    assert info.st_size == SIZE
    assert info.st_blocks * 512 >= SIZE


def test_it_is_used_again_smaller_and_larger(tmp_path: Path) -> None:
    path = tmp_path / "f"
    for slots in (SLOTS, SLOTS, 10, 2 * SLOTS, 1):
        open_and_close(path, slots)
        assert path.stat().st_size == FIRST + slots * SLOT
        assert path.stat().st_blocks * 512 >= FIRST + slots * SLOT


def test_an_empty_file_will_do(tmp_path: Path) -> None:
    (tmp_path / "f").touch(0o600)
    open_and_close(tmp_path / "f")
    assert (tmp_path / "f").stat().st_size == SIZE


@pytest.mark.parametrize("content", [b"x", run(1, 3), bytes(SIZE), b"tmemfs overflow file"])
def test_what_is_something_else_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "f"
    path.write_bytes(content)
    path.chmod(0o600)
    refused(path, "is not empty and not an overflow file")
    assert path.read_bytes() == content


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o606])
def test_a_file_that_others_may_read(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "f"
    path.touch()
    path.chmod(mode)
    refused(path, "others may read it")
    path.chmod(0o600)
    open_and_close(path)
    path.chmod(mode)
    refused(path, "others may read it")


@root
def test_a_file_of_somebody_else(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.touch(0o600)
    os.chown(path, 65534, 65534)
    refused(path, "others may read it")


def test_only_one_may_have_it(tmp_path: Path) -> None:
    path = tmp_path / "f"
    fd = open_slots(str(path), SLOTS)
    content = path.read_bytes()
    refused(path, "another tmemfs has its overflow there", 2 * SLOTS)
    assert path.read_bytes() == content
    os.close(fd)
    open_and_close(path)


def test_what_is_no_file(tmp_path: Path) -> None:
    refused(tmp_path, "directory")
    refused(tmp_path / "absent" / "f", "No such file")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "pipe: ")
    refused(Path("/dev/null"), "null: ")
    os.symlink("nowhere", tmp_path / "link")
    refused(tmp_path / "link", "is a symbolic link to what is not there: No such file")
    assert os.readlink(tmp_path / "link") == "nowhere"
    assert not (tmp_path / "nowhere").exists()


def test_who_has_it_keeps_its_name(tmp_path: Path) -> None:
    """Others make the file at the same time, fail, and remove what they made."""
    path = tmp_path / "f"
    too_many = 1 << 50
    done = threading.Event()

    def fail() -> None:
        while not done.is_set():
            with pytest.raises(MountFailure):
                open_slots(str(path), too_many)

    with ThreadPoolExecutor(3) as threads:
        failing = [threads.submit(fail) for _ in range(3)]
        try:
            had = 0
            while had < 20:
                assert not any(thread.done() for thread in failing)
                with suppress(MountFailure):  # one of the others has it
                    fd = open_slots(str(path), 1)
                    had += 1
                    assert os.path.samestat(os.fstat(fd), os.stat(path))
                    os.unlink(path)
                    os.close(fd)
        finally:
            done.set()
        assert [thread.result() for thread in failing] == [None] * 3
    # Who made it may have found it locked by another, who did not make it: nobody removes it then.
    assert not path.exists() or path.stat().st_size == 0


# --- a filesystem --------------------------------------------------------------------------------


@contextmanager
def loop_device(file: Path) -> Iterator[Path]:
    device = subprocess.check_output(["losetup", "--find", "--show", str(file)], text=True).strip()
    try:
        yield Path(device)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


@contextmanager
def mounted_at(place: Path, *what: str | Path) -> Iterator[Path]:
    place.mkdir()
    subprocess.run(["mount", *what, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Path]:
    """An empty disk of 32 MiB."""
    (tmp_path / "disk").touch()
    os.truncate(tmp_path / "disk", 32 << 20)
    with loop_device(tmp_path / "disk") as made:
        yield made


@root
def test_too_little_space_leaves_nothing_behind(tmp_path: Path, device: Path) -> None:
    """It is found at the start, and what was there is as it was."""
    subprocess.run(["mkfs.ext4", "-q", device], check=True)
    with mounted_at(tmp_path / "m", device) as place:
        free = os.statvfs(place).f_bavail
        refused(place / "f", "are not to be had: No space left on device", 16_000)
        assert not (place / "f").exists()
        assert os.statvfs(place).f_bavail == free
        # One that is there keeps its size.
        open_and_close(place / "g")
        content = (place / "g").read_bytes()
        refused(place / "g", "No space left on device", 16_000)
        assert (place / "g").read_bytes() == content
        open_and_close(place / "g")


@root
def test_a_filesystem_without_direct_io(tmp_path: Path) -> None:
    with mounted_at(tmp_path / "m", "-t", "ramfs", "ramfs") as place:
        refused(place / "f", "has no direct I/O")
        assert not (place / "f").exists()
        (place / "f").touch(0o600)
        refused(place / "f", "has no direct I/O")


@root
def test_what_is_in_memory_itself(tmp_path: Path) -> None:
    with mounted_at(tmp_path / "m", "-t", "tmpfs", "tmpfs") as place:
        # Before Linux 6.6 it has no direct I/O either.
        refused(place / "f", r"is in memory \(tmpfs\), and the overflow is for|has no direct I/O")
        assert not (place / "f").exists()


@root
def test_a_filesystem_that_may_only_be_read(tmp_path: Path, device: Path) -> None:
    subprocess.run(["mkfs.ext4", "-q", device], check=True)
    with mounted_at(tmp_path / "m", "-o", "ro", device) as place:
        refused(place / "f", "Read-only file system")


# --- a block device ------------------------------------------------------------------------------


@root
def test_an_empty_device(device: Path) -> None:
    open_and_close(device)
    # Its own, it is taken again.
    open_and_close(device, 2 * SLOTS)
    refused(device, "has 32M; the overflow needs", 8192)
    open_and_close(device, 8191)


@root
def test_a_device_that_is_in_use(tmp_path: Path, device: Path) -> None:
    fd = open_slots(str(device), SLOTS)
    refused(device, "busy")
    os.close(fd)
    subprocess.run(["mkfs.ext4", "-q", "-F", device], check=True)
    with mounted_at(tmp_path / "m", device):
        refused(device, "busy")


@root
@pytest.mark.parametrize("was_ours", [False, True], ids=["new", "was an overflow"])
@pytest.mark.parametrize("what", ["ext4", "swap", "partitions"])
def test_a_device_with_something_on_it(device: Path, what: str, was_ours: bool) -> None:
    """Also where an overflow was before: what was made in its place is not lost."""
    if was_ours:
        open_and_close(device, 8000)
    if what == "partitions":
        table = bytearray(512)
        table[446:462] = bytes.fromhex("0000020083000000000800000040000000")[:16]
        table[510:] = b"\x55\xaa"
        with open(device, "r+b") as disk:
            disk.write(bytes(4096))
            disk.seek(0)
            disk.write(table)
    else:
        command = ["mkswap", device] if what == "swap" else ["mkfs.ext4", "-q", "-F", device]
        subprocess.run(command, check=True, capture_output=True)
    before = device.read_bytes()
    message = refused(device, "has (ext4|swap|something) on it")
    assert "wipefs" in message
    assert device.read_bytes() == before


@root
def test_without_blkid_nothing_is_taken_for_empty(
    device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    refused(device, "blkid is missing")


def test_errors_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has the exit code of its kind."""
    (tmp_path / "f").write_text("something")
    with pytest.raises(MountFailure):
        open_slots(str(tmp_path / "f"), SLOTS)

    def forbid(*_: object) -> int:
        raise PermissionError(13, os.strerror(13), str(tmp_path / "f"))

    monkeypatch.setattr(os, "open", forbid)
    with pytest.raises(NotPermitted, match="Permission denied"):
        open_slots(str(tmp_path / "f"), SLOTS)
