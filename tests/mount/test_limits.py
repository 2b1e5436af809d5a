"""What a program gets in the directory and not through the mount: docs/limits.md, row by row."""

import ast
import ctypes
import errno
import fcntl
import mmap
import os
import re
import signal
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from as_root import public_directory, tmpfs_at
from mounting import Mounted, drop_kernel_caches, mounted, wait_for
from posix_cases.runner import ALICE, as_user, attempt
from sources import ext4

from tmemfs.linux.credentials import caller

pytestmark = pytest.mark.root

TESTS = Path(__file__).parents[1]
LIMITS = TESTS.parent / "docs" / "limits.md"

GETFLAGS, FIEMAP, FICLONE = 0x80086601, 0xC020660B, 0x40049409
IN_MODIFY = 2
STATX_BTIME = 0x800


@pytest.fixture(scope="module")
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    """Over a disk of ext4, which has all of it."""
    top = tmp_path_factory.mktemp("limits")
    with ext4(top) as disk, mounted(disk.path, top / "m", "--budget=16M") as mount:
        (disk.path / "file").write_bytes(b"content" * 4096)
        yield mount
        assert mount.status()["failsafe"]["count"] == 0


def both(mount: Mounted) -> tuple[Path, Path]:
    """One file in the directory and through the mount."""
    return mount.source / "file", mount.path / "file"


def test_every_row_is_pinned() -> None:
    """Each has a test that would fail if it were not so any more, and that test is there."""
    rows = [line for line in LIMITS.read_text().splitlines() if line.startswith("| ")]
    rows = [line for line in rows if not re.match(r"\| (what|-)", line)]
    assert len(rows) > 20
    for row in rows:
        pins = re.findall(r"`([\w/]+\.py)::(\w+)`", row.split("|")[-2])
        assert pins, row
        for file, name in pins:
            tree = ast.parse((TESTS / file).read_text())
            assert name in {n.name for n in tree.body if hasattr(n, "name")}, (file, name)


@pytest.mark.parametrize("lock", [fcntl.flock, fcntl.lockf], ids=["flock", "record locks"])
def test_locks_are_of_the_mount(mount: Mounted, lock: object) -> None:
    assert callable(lock)
    there, here = both(mount)
    with open(there, "r+") as first, open(here, "r+") as second, open(here, "r+") as third:
        lock(first, fcntl.LOCK_EX)
        lock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if lock is fcntl.flock:  # record locks are a process's own
            assert attempt(lock, third, fcntl.LOCK_EX | fcntl.LOCK_NB) == "EAGAIN"


def test_changes_in_the_source_are_no_events(mount: Mounted) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    there, here = both(mount)
    watch = libc.inotify_init1(os.O_NONBLOCK)
    try:
        assert libc.inotify_add_watch(watch, bytes(here), IN_MODIFY) > 0
        with open(there, "r+b") as file:
            file.write(b"c")
        assert attempt(os.read, watch, 4096) == "EAGAIN"
        with open(here, "r+b") as file:
            file.write(b"c")
        assert os.read(watch, 4096)
    finally:
        os.close(watch)


@pytest.mark.parametrize("request_", [GETFLAGS, FIEMAP], ids=["flags", "extents"])
def test_ioctls_of_the_filesystem(mount: Mounted, request_: int) -> None:
    argument = struct.pack("=QQIIII", 0, 1 << 20, 0, 0, 0, 0)  # of extents, and enough for flags
    answers = []
    for path in both(mount):
        with open(path, "rb") as file:
            answers.append(attempt(fcntl.ioctl, file, request_, argument))
    assert isinstance(answers[0], bytes)
    assert answers[1] in ("ENOTTY", "ENOTSUP")


def test_reflinks(mount: Mounted) -> None:
    """A copy is a copy: nothing is shared on the disk."""
    here = mount.path / "file"
    with open(here, "rb") as file, open(mount.path / "clone", "wb") as clone:
        assert attempt(fcntl.ioctl, clone, FICLONE, file.fileno()) == "ENOTSUP"
        done = os.copy_file_range(file.fileno(), clone.fileno(), 100)
    assert (mount.path / "clone").read_bytes() == here.read_bytes()[:done]
    assert done == 100


def test_birth_times(mount: Mounted) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    has = []
    for path in both(mount):
        buffer = ctypes.create_string_buffer(256)
        assert libc.statx(-100, bytes(path), 0, ctypes.c_uint(0xFFF), buffer) == 0
        has.append(bool(struct.unpack_from("=I", buffer)[0] & STATX_BTIME))
    assert has == [True, False]


def test_a_file_of_size_0_with_content(tmp_path: Path) -> None:
    """As in /proc: the kernel does not even ask for what lies behind the end."""
    with mounted(Path("/proc/sys/kernel"), tmp_path / "m", "--budget=16M") as mount:
        assert (mount.source / "ostype").read_text() == "Linux\n"
        assert (mount.path / "ostype").read_text() == ""
    with mounted(
        Path("/proc/sys/kernel"), tmp_path / "m", "--budget=16M", "-o", "cache=none"
    ) as mount:
        assert (mount.path / "ostype").read_text() in ("", "Linux\n")


def test_swap_on_a_file_of_the_mount(mount: Mounted) -> None:
    path = mount.path / "swapfile"
    path.write_bytes(bytes(1 << 20))
    path.chmod(0o600)
    subprocess.run(["mkswap", path], check=True, capture_output=True)
    done = subprocess.run(["swapon", path], check=False, capture_output=True, text=True)
    assert done.returncode != 0
    assert "Invalid argument" in done.stderr


def test_a_name_is_taken_in_the_root(mount: Mounted) -> None:
    assert attempt(os.mkdir, mount.path / ".tmemfs") == "EEXIST"
    (mount.source / ".tmemfs").mkdir()
    (mount.source / ".tmemfs" / "hidden").touch()
    try:
        assert ".tmemfs" not in os.listdir(mount.path)
        assert attempt(os.stat, mount.path / ".tmemfs" / "hidden") == "ENOENT"
    finally:
        (mount.source / ".tmemfs" / "hidden").unlink()
        (mount.source / ".tmemfs").rmdir()


def test_file_handles_hold_as_long_as_the_kernel_knows_the_inode(mount: Mounted) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    handle = ctypes.create_string_buffer(struct.pack("=Ii", 128, 0) + bytes(128))
    number = ctypes.c_int()
    path = mount.path / "handled"
    path.write_text("content")
    assert libc.name_to_handle_at(-100, bytes(path), handle, ctypes.byref(number), 0) == 0
    directory = os.open(mount.path, os.O_RDONLY)
    try:

        def reach() -> object:
            fd = libc.open_by_handle_at(directory, handle, os.O_RDONLY)
            if fd < 0:
                return errno.errorcode[ctypes.get_errno()]
            try:
                return os.read(fd, 100)
            finally:
                os.close(fd)

        assert reach() == b"content"
        wait_for("it is forgotten", lambda: (drop_kernel_caches(), reach() == "ESTALE")[1])
    finally:
        os.close(directory)


def test_a_place_below_a_nested_mount_does_not_keep_it(mount: Mounted) -> None:
    """A working directory there is one of the mount, and not of what is mounted below."""
    quiet = subprocess.DEVNULL
    with tmpfs_at(mount.source / "disk") as disk:
        (disk / "sub").mkdir()
        program = subprocess.Popen(["sleep", "60"], cwd=mount.path / "disk" / "sub")
        try:
            words = ["umount", mount.source / "disk"]
            wait_for(
                "it goes", lambda: subprocess.run(words, check=False, stderr=quiet).returncode == 0
            )
            assert attempt(os.listdir, f"/proc/{program.pid}/cwd") in ("ESTALE", "ENOENT")
        finally:
            program.kill()
            program.wait()


def test_a_program_that_runs_may_be_written_to_in_the_source(mount: Mounted) -> None:
    """The source does not know that it runs: natively ETXTBSY."""
    program = mount.path / "program"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    with subprocess.Popen([program, "60"]) as running:
        try:
            assert attempt(os.open, program, os.O_WRONLY) == "ETXTBSY"
            os.close(os.open(mount.source / "program", os.O_WRONLY))
        finally:
            running.kill()


def test_a_shared_mapping_without_the_kernels_cache(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_bytes(bytes(4096))
    with (
        mounted(tmp_path / "source", tmp_path / "m", "--budget=16M", "-o", "cache=none") as mount,
        open(mount.path / "file", "r+b") as file,
    ):
        assert attempt(mmap.mmap, file.fileno(), 4096) == "ENODEV"
        with mmap.mmap(file.fileno(), 4096, mmap.MAP_PRIVATE) as mapped:
            assert mapped[:1] == b"\0"


def test_syncfs_is_of_the_mount(mount: Mounted) -> None:
    """It writes back what the kernel holds of the mount; fsync(2) reaches the source's disk."""
    libc = ctypes.CDLL(None, use_errno=True)
    device = os.stat(mount.source).st_dev
    figures = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat")
    size = 4 << 20

    def written() -> int:
        return int(figures.read_text().split()[6]) * 512

    os.sync()
    with open(mount.path / "synced", "wb", buffering=0) as file:
        before = written()
        file.write(bytes(size))
        assert libc.syncfs(file.fileno()) == 0
        assert written() - before < size
        os.fsync(file.fileno())
        assert written() - before >= size


def test_the_owner_of_reads_is_the_daemon(mount: Mounted) -> None:
    """What a program reads is counted, and limited, as the daemon's I/O on the source's disk."""
    before = _read_bytes(mount.process.pid)
    big = mount.source / "big"
    big.write_bytes(os.urandom(4 << 20))
    os.sync()
    drop_kernel_caches()
    assert len((mount.path / "big").read_bytes()) == 4 << 20
    assert _read_bytes(mount.process.pid) - before >= 4 << 20


def _read_bytes(pid: int) -> int:
    found = re.search(r"^read_bytes: (\d+)", Path(f"/proc/{pid}/io").read_text(), re.MULTILINE)
    assert found
    return int(found[1])


@pytest.fixture
def quiet() -> Iterator[None]:
    """Whoever has a lease that is to be given back is sent a signal, which would end this."""
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGIO, before)


@pytest.mark.usefixtures("quiet")
def test_leases_are_of_the_mount(mount: Mounted) -> None:
    there, here = both(mount)
    for leased, error in ((there, "EAGAIN"), (here, None)):
        with open(leased, "rb") as file:
            assert fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK) == 0
            # Who opens it in the source is told of a lease there, and of no other.
            opened = attempt(os.open, there, os.O_WRONLY | os.O_NONBLOCK)
            assert opened == error if error else isinstance(opened, int)
            if isinstance(opened, int):
                os.close(opened)
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def test_holes_while_somebody_may_write(mount: Mounted) -> None:
    there, here = mount.source / "sparse", mount.path / "sparse"
    with open(there, "wb") as file:
        file.write(b"content")
        file.truncate(1 << 20)
    with open(there, "rb") as native, open(here, "rb", buffering=0) as seen:
        hole = os.lseek(native.fileno(), 0, os.SEEK_HOLE)
        assert os.lseek(seen.fileno(), 0, os.SEEK_HOLE) == hole < 1 << 20
        with open(here, "r+b"):
            assert os.lseek(seen.fileno(), 0, os.SEEK_HOLE) == 1 << 20
        assert os.lseek(seen.fileno(), 0, os.SEEK_HOLE) == hole


def test_groups_of_who_cannot_be_seen() -> None:
    """As from outside of the daemon's pid namespace: there is no process to ask."""
    assert caller(ALICE, ALICE, 0).groups == ()
    assert caller(ALICE, ALICE, 0).capabilities == 0


def test_what_is_above_the_source_does_not_count() -> None:
    """A directory that hides the source from others does not hide what the mount shows."""
    with public_directory() as top:
        source = top / "hidden" / "source"
        source.mkdir(parents=True)
        (source / "file").write_text("content")
        source.chmod(0o755)
        source.parent.chmod(0o700)
        with mounted(source, top / "m", "--budget=16M") as mount:
            assert as_user(ALICE, lambda: attempt((source / "file").read_text)) == "EACCES"
            assert as_user(ALICE, (mount.path / "file").read_text) == "content"


def test_direct_io_needs_no_alignment(mount: Mounted) -> None:
    there, here = both(mount)
    answers = []
    for path in (there, here):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
        try:
            answers.append(attempt(os.pread, fd, 10, 1))
        finally:
            os.close(fd)
    assert answers == ["EINVAL", there.read_bytes()[1:11]]
