"""How many requests of the kernel common work causes, beside bindfs, and which wait for others."""

import os
import re
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mounting import SECONDS, drop_kernel_caches, mounted, wait_for

pytestmark = pytest.mark.root

# As libfuse writes it with the option `debug`.
_REQUEST = re.compile(r"^ *unique: \d+, opcode: (\w+) ", re.MULTILINE)
# What comes some time after it was caused.
_LATE = {"FORGET", "BATCH_FORGET", "RELEASE", "RELEASEDIR", "INTERRUPT", "INIT", "STATFS"}

Work = Callable[[Path], None]


@contextmanager
def bindfs(source: Path, mountpoint: Path) -> Iterator[Path]:
    """The peer, as it is by default; yields its log."""
    if shutil.which("bindfs") is None:
        pytest.skip("no bindfs")
    mountpoint.mkdir()
    log = mountpoint.parent / "bindfs.log"
    with log.open("w") as file:
        process = subprocess.Popen(["bindfs", "-d", source, mountpoint], stdout=file, stderr=file)
    try:
        wait_for("bindfs has mounted", lambda: os.path.ismount(mountpoint))
        yield log
    finally:
        subprocess.run(["umount", mountpoint], check=True)
        process.wait(SECONDS)


def caused(log: Path, mountpoint: Path, work: Work) -> Counter[str]:
    """The requests that *work* causes below a mount whose libfuse writes them to *log*."""
    os.stat(mountpoint)
    before = len(log.read_text())
    work(mountpoint)
    found = Counter(_REQUEST.findall(log.read_text()[before:]))
    return Counter({opcode: n for opcode, n in found.items() if opcode not in _LATE})


def open_read_close(mount: Path) -> None:
    for _ in range(50):
        (mount / "file").read_bytes()


def git_status(mount: Path) -> None:
    subprocess.run(["git", "-C", mount, "status"], check=True, stdout=subprocess.DEVNULL)


def write(mount: Path) -> None:
    fd = os.open(mount / "written", os.O_WRONLY)
    for number in range(200):
        os.pwrite(fd, b"x" * 4096, number * 4096)
    os.close(fd)


def listing(mount: Path) -> None:
    subprocess.run(["ls", "-l", mount / "many"], check=True, stdout=subprocess.DEVNULL)


def links(mount: Path) -> None:
    for _ in range(50):
        os.readlink(mount / "link")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    made = tmp_path / "source"
    (made / "many").mkdir(parents=True)
    (made / "file").write_bytes(b"content" * 1000)
    (made / "written").write_bytes(bytes(200 * 4096))
    (made / "link").symlink_to("file")
    for number in range(100):
        (made / "many" / str(number)).write_text("few")
    for path in made.rglob("*"):  # git looks again into what has just changed
        os.utime(path, (1e9, 1e9), follow_symlinks=False)
    git = ["git", "-C", str(made), "-c", "user.name=n", "-c", "user.email=e"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *words], check=True)
    return made


@pytest.mark.parametrize("work", [open_read_close, git_status, write, listing, links])
def test_no_more_than_bindfs(source: Path, tmp_path: Path, work: Work) -> None:
    """The second time that it is done, what has to be asked for being asked for again."""
    counts = []
    with (
        bindfs(source, tmp_path / "b") as of_bindfs,
        mounted(source, tmp_path / "m", "--budget=16M", "-onative=off", "--debug", logs=True) as m,
    ):
        for log, mountpoint in ((m.log_file, m.path), (of_bindfs, tmp_path / "b")):
            work(mountpoint)
            drop_kernel_caches()
            counts.append(caused(log, mountpoint, work))
    ours, theirs = counts
    assert ours
    # A name or two may be believed still, for a second.
    assert ours.total() <= theirs.total() + 2, (ours, theirs)


# Run by the serving process: who looks one name up waits until a file is there.
_SLOW = """
import os, trio
from tmemfs.cachefs.names import Names

lookup = Names.lookup

async def slow(self, parent, name):
    while name == b"slow" and not os.path.exists({gate!r}):
        await trio.sleep(0.01)
    return await lookup(self, parent, name)

Names.lookup = slow
"""


def test_one_name_is_looked_up_while_another_waits(source: Path, tmp_path: Path) -> None:
    """In the same directory, and while it is listed: the kernel asks for all at once."""
    gate = tmp_path / "gate"
    with mounted(
        source, tmp_path / "m", "--budget=16M", before=_SLOW.format(gate=str(gate))
    ) as mount:
        program = "import os, sys; print(flush=True); os.path.exists(sys.argv[1])"
        with subprocess.Popen(
            [sys.executable, "-c", program, mount.path / "slow"], stdout=subprocess.PIPE
        ) as waiting:
            assert waiting.stdout is not None
            waiting.stdout.readline()
            found = threading.Thread(target=(mount.path / "file").read_bytes)
            found.start()
            found.join(SECONDS)
            held, listed = found.is_alive(), os.listdir(mount.path)
            waits = waiting.poll() is None
            gate.touch()
            assert waiting.wait(SECONDS) == 0
        found.join(SECONDS)
        assert not held
        assert "file" in listed
        assert waits
