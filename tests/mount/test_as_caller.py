"""A root mount changes the source with the rights of whoever asks, and with no others."""

import errno
import os
import re
import stat
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from as_root import NOBODY, public_directory
from mounting import Mounted, mounted
from posix_cases.runner import ALICE, BOB, STAFF, as_user, attempt
from sources import ext4, sshfs

from tmemfs.linux import credentials

pytestmark = pytest.mark.root

MODES = {
    "open": "cache=open",
    "none": "cache=none",
    "always": "cache=always",
    "writeback": "writeback",
}


@pytest.fixture
def top() -> Iterator[Path]:
    with public_directory() as path:
        yield path


def everything(place: Path) -> list[object]:
    """One of each kind, made by whoever calls."""
    (place / "target").write_text("x")
    calls = (
        lambda: (place / "file").write_text("content"),
        lambda: os.mkdir(place / "sub"),
        lambda: os.symlink("target", place / "link"),
        lambda: os.symlink("nowhere", place / "dangling"),
        lambda: os.rename(place / "file", place / "moved"),
        (place / "moved").read_text,
        lambda: os.unlink(place / "moved"),
        lambda: os.rmdir(place / "sub"),
        lambda: os.readlink(place / "link"),
        lambda: os.unlink(place / "link"),
    )
    return [attempt(call) for call in calls]


@pytest.mark.parametrize("server", [0, NOBODY], ids=["root", "nobody"])
def test_on_a_server(top: Path, server: int) -> None:
    """Made as on the bare source, also where nothing can be given away."""
    with sshfs(top, user=server) as source, mounted(source.path, top / "m") as mount:
        for place in (source.behind / "bare", source.behind / "seen"):
            place.mkdir()
            place.chmod(0o777)
        bare = as_user(ALICE, lambda: everything(source.path / "bare"))
        assert as_user(ALICE, lambda: everything(mount.path / "seen")) == bare
        assert None in bare
        owners = [
            {name: os.lstat(source.behind / place / name).st_uid for name in ("target", "dangling")}
            for place in ("bare", "seen")
        ]
        assert owners[0] == owners[1]


def test_a_link_is_not_followed_on_the_server(top: Path) -> None:
    with sshfs(top) as source, mounted(source.path, top / "m") as mount:
        pub = source.behind / "pub"
        pub.mkdir()
        pub.chmod(0o777)
        victim = source.behind / "victim"
        victim.write_text("root's")
        before = os.stat(victim)
        as_user(ALICE, lambda: os.symlink(victim, mount.path / "pub" / "l"))
        after = os.stat(victim)
        assert (after.st_uid, after.st_mode) == (before.st_uid, before.st_mode)
        assert os.readlink(pub / "l") == str(victim)


@pytest.mark.parametrize("mode", MODES)
def test_a_full_disk_is_full_for_who_is_not_root(top: Path, mode: str) -> None:
    """What the disk keeps back for root is not for others through root's daemon."""
    with (
        ext4(top, 16 << 20, "-m 25") as source,
        mounted(source.path, top / "m", "-o", MODES[mode]) as mount,
    ):
        source.path.chmod(0o777)

        def fill(path: Path) -> object:
            fd = os.open(path, os.O_CREAT | os.O_WRONLY, 0o644)
            try:
                for _ in range(32):
                    os.write(fd, os.urandom(1 << 20))
                os.fsync(fd)
            except OSError as error:
                return error.errno
            finally:
                os.close(fd)
            return 0

        assert as_user(ALICE, lambda: fill(mount.path / "big")) == errno.ENOSPC
        free = os.statvfs(source.path)
        assert free.f_bfree * free.f_frsize > 2 << 20
        assert as_user(BOB, lambda: attempt(fill, mount.path / "more")) == errno.ENOSPC
        if mode != "writeback":  # there the kernel itself believes what is free for anybody
            (mount.path / "of root").write_bytes(bytes(1 << 20))
            assert (source.path / "of root").stat().st_size == 1 << 20


def test_nobodys_rights_leak_into_anothers_call(top: Path) -> None:
    """Many at once, some of whose calls fail: each file is whose it is to be, with its mode."""
    (top / "source").mkdir()
    (top / "source").chmod(0o777)
    closed = top / "source" / "closed"
    closed.mkdir(mode=0o700)
    users = [(0, 0o022), (ALICE, 0o077), (BOB, 0o002), (NOBODY, 0o027)]

    def work(number: int, uid: int, umask: int, mount: Mounted) -> list[str]:
        def run() -> list[str]:
            wrong = []
            for count in range(60):
                path = mount.path / f"{number}-{count}"
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
                os.mkdir(f"{path}.d", 0o777)
                if attempt(os.mkdir, mount.path / "closed" / f"{path.name}") != (
                    "EACCES" if uid else None
                ):
                    wrong.append(f"{path}: closed")
            return wrong

        if not uid:
            os.umask(umask)
        return as_user(uid, run, umask=umask)

    before = os.umask(0o022)
    try:
        for swap in ((), ("--swap=a=1M",)):
            name = "with-swap" if swap else "plain"
            with mounted(top / "source", top / name, *swap) as mount, ThreadPoolExecutor(8) as pool:
                runs = [
                    pool.submit(work, (100 * len(swap)) + n, *users[n % 4], mount) for n in range(8)
                ]
                assert [run.result(120) for run in runs] == [[]] * 8
                for n in range(8):
                    uid, umask = users[n % 4]
                    for count in range(60):
                        path = top / "source" / f"{100 * len(swap) + n}-{count}"
                        for made, mode in ((path, 0o666), (Path(f"{path}.d"), 0o777)):
                            info = os.lstat(made)
                            assert (info.st_uid, info.st_gid) == (uid, uid)
                            assert stat.S_IMODE(info.st_mode) == mode & ~umask
    finally:
        os.umask(before)


def test_who_may_only_write(top: Path) -> None:
    """A file that may be written and not read, in every mode: to append to it works."""
    (top / "source").mkdir()
    for mode, option in MODES.items():
        file = top / "source" / mode
        file.write_bytes(b"begun\n")
        os.chown(file, ALICE, STAFF)
        file.chmod(0o222)

        def append(path: Path) -> None:
            fd = os.open(path, os.O_WRONLY | os.O_APPEND)
            os.write(fd, b"appended\n")
            os.close(fd)

        with mounted(top / "source", top / "m", "-o", option) as mount:
            for who in (ALICE, BOB):
                as_user(who, lambda mode=mode, mount=mount: append(mount.path / mode))
        assert file.read_bytes() == b"begun\nappended\nappended\n"


# Numbers of capabilities(7), those that a daemon is said to keep.
CAPABILITIES = {
    "CHOWN": 0, "DAC_OVERRIDE": 1, "DAC_READ_SEARCH": 2, "FOWNER": 3, "FSETID": 4, "SETGID": 6,
    "SETUID": 7, "LINUX_IMMUTABLE": 9, "IPC_LOCK": 14, "SYS_PTRACE": 19, "SYS_ADMIN": 21,
    "SYS_RESOURCE": 24, "MKNOD": 27, "SETFCAP": 31, "MAC_OVERRIDE": 32, "MAC_ADMIN": 33,
}  # fmt: skip


def test_the_daemon_keeps_what_it_says(top: Path) -> None:
    """In each of its threads, while it serves; and docs/security.md names all of it."""
    text = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
    said = set(re.findall(r"`CAP_([A-Z_]+)`", text))
    assert said == set(CAPABILITIES)
    kept = sum(1 << CAPABILITIES[name] for name in said)
    (top / "source").mkdir()
    (top / "source" / "file").write_text("x")
    with mounted(top / "source", top / "m") as mount:
        os.listdir(mount.path)  # in a thread
        threads = list(Path(f"/proc/{mount.process.pid}/task").iterdir())
        assert len(threads) > 1
        for thread in threads:
            status = (thread / "status").read_text()
            for which in ("CapEff", "CapPrm"):
                found = re.search(rf"^{which}:\t(\w+)", status, re.MULTILINE)
                assert found is not None
                assert int(found[1], 16) & ~kept == 0, (thread, which)


@pytest.mark.parametrize(
    ("words", "has_all"),
    [
        ((), True),
        # All capabilities, and root by its number: over there, and not here.
        (("unshare", "--user", "--map-root-user"), False),
        # Root, and some of what root has: it must not get the rest from us.
        (("setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"), False),
    ],
)
def test_root_is_known_by_all_that_it_has(words: tuple[str, ...], has_all: bool) -> None:
    """The quick way to know who asks, which does not read what /proc says of them."""
    ready = ("sh", "-c", "echo ready; exec cat")
    with subprocess.Popen(
        [*words, *ready], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        found = credentials.caller(0, 0, process.pid)
        process.stdin.close()
    ours = credentials.ourselves()
    assert (found.capabilities == ours.capabilities) is has_all
    assert found.uid == 0
    assert not found.capabilities & ~ours.capabilities
