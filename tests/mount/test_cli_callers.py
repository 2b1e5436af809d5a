"""The real command as mount(8) calls it, from fstab above all, and as users without root do."""

import ctypes
import importlib
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from as_root import NOBODY, Outcome, as_nobody, public_directory
from command import COMMAND, PACKAGE_PARENT, Place, environment, run
from mounting import wait_for
from posix_cases.runner import attempt

from tmemfs.cli.main import main
from tmemfs.linux import system

# What main() imports when it is used, a process that drops its privileges may not find any more.
for module in ("cli.commands.mount", "cli.commands.status", "cli.commands.umount", "daemon"):
    importlib.import_module(f"tmemfs.{module}")

pytestmark = [
    pytest.mark.root,
    # What runs without privileges is a fork of this process, and uses no thread of it.
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


# --- mount(8) and fstab ----------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A directory with the command `tmemfs` in it."""
    program = tmp_path / "bin" / "tmemfs"
    program.parent.mkdir()
    program.write_text(
        f"#!/bin/sh\nPYTHONPATH='{PACKAGE_PARENT}' exec '{COMMAND[0]}' -m tmemfs \"$@\"\n"
    )
    program.chmod(0o755)
    return program.parent


needs_mount_fuse3 = pytest.mark.skipif(shutil.which("mount.fuse3") is None, reason="no mount.fuse3")


def test_the_argv_of_mount_fuse3(place: Place) -> None:
    place.run(place.source, place.mountpoint, "-o", "rw,budget=16M,dev,suid")
    assert (place.mountpoint / "file").read_text() == "from the source"
    assert place.entry is not None
    assert place.entry.options >= {"nosuid", "nodev", "rw"}


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&- 2>&-"])
def test_a_caller_who_has_closed_its_descriptors(place: Place, closed: str) -> None:
    """Their numbers are not those of the daemon's files."""
    command = f'exec "$@" {closed}'
    run("sh", "-c", command, "sh", *COMMAND, "mount", place.source, place.mountpoint)
    assert (place.mountpoint / "file").read_text() == "from the source"
    run("sh", "-c", command, "sh", *COMMAND, "status", place.mountpoint)


def test_a_caller_who_does_not_listen_when_it_is_ready(place: Place) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [*COMMAND, "mount", "-f", "-v", str(place.source), str(place.mountpoint)]
    with subprocess.Popen(command, stdout=writing, env=environment()) as daemon:
        os.close(writing)
        try:
            file = place.mountpoint / "file"
            wait_for("it is mounted", lambda: file.exists() or daemon.poll() is not None)
            assert file.read_text() == "from the source"
        finally:
            daemon.terminate()
    assert daemon.returncode == 0
    assert place.entry is None


@needs_mount_fuse3
def test_mount_fuse3_itself(place: Place, installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{installed}:{os.environ['PATH']}")
    helper = shutil.which("mount.fuse3")
    run(helper, place.source, place.mountpoint, "-t", "fuse.tmemfs", "-o", "ro,budget=16M")
    assert (place.mountpoint / "file").read_text() == "from the source"
    assert place.entry is not None
    assert "ro" in place.entry.options
    wrong = run(helper, place.source, place.mountpoint / "none", "-t", "fuse.tmemfs", code=32)
    assert wrong.err == f"tmemfs: {place.mountpoint}/none: the mountpoint does not exist\n"


@needs_mount_fuse3
def test_mount_with_the_path_of_the_command(place: Place, installed: Path) -> None:
    """What is written in fstab where the command is in a virtual environment."""
    run("mount", "-t", "fuse", "-o", "budget=16M", f"{installed}/tmemfs#{place.source}",
        place.mountpoint)  # fmt: skip
    assert (place.mountpoint / "file").read_text() == "from the source"
    assert place.entry is not None
    assert place.entry.fstype == system.FSTYPE
    wrong = run("mount", "-t", "fuse", "-o", "budgt=16M", f"{installed}/tmemfs#{place.source}",
                place.mountpoint, code=2)  # fmt: skip
    assert wrong.err == "tmemfs: unknown option 'budgt'; did you mean 'budget'?\n"


@needs_mount_fuse3
@pytest.mark.skipif(not os.path.isdir("/usr/local/sbin"), reason="no /usr/local/sbin")
@pytest.mark.parametrize(
    "asked", ["", ",suid", ",allow_suid", ",allow_dev", ",allow_suid,allow_dev", ",nosuid"]
)
def test_a_line_of_fstab(asked: str, place: Place, installed: Path, tmp_path: Path) -> None:
    """By mount(8), which gives its helpers no PATH: the command is where the shell looks by itself.

    In a namespace of its own, where it is there only for this test.
    """
    escaped = [str(path).replace(" ", "\\040") for path in (place.source, place.mountpoint)]
    fstab = tmp_path / "fstab"
    options = f"noauto,nofail,_netdev,x-systemd.automount,noexec,budget=16M,swap=a=1M{asked}"
    fstab.write_text(f"{' '.join(escaped)} fuse.tmemfs {options} 0 0\n")
    script = (
        'set -e; mount --bind "$1" /usr/local/sbin\n'
        'mount -T "$2" "$3"\n'
        'cat "$3/file"; echo; findmnt -n -r -t fuse.tmemfs -o FSTYPE,OPTIONS "$3"\n'
        'tmemfs status -n -o POOL,MEM-LIMIT "$3"\n'
        'tmemfs umount "$3"; findmnt "$3" || echo gone\n'
    )
    said = run(
        "unshare", "--mount", "--propagation", "private",
        "sh", "-c", script, "sh", installed, fstab, place.mountpoint,
    ).out.splitlines()  # fmt: skip
    assert said[0] == "from the source"
    fstype, options = said[1].split()
    assert fstype == "fuse.tmemfs"
    assert set(options.split(",")) >= {"rw", "noexec"}
    for word in ("suid", "dev"):
        assert (f"no{word}" in options.split(",")) is (f"allow_{word}" not in asked.split(","))
    assert [line.split() for line in said[2:4]] == [["cache", "16M"], ["a", "16M"]]
    assert said[4:] == ["gone"]


# --- without root ----------------------------------------------------------------------------


def with_fuse_for_everybody() -> None:
    """Let everybody open /dev/fuse, as on most machines; in a namespace that ends with the call."""
    if stat.S_IMODE(os.stat("/dev/fuse").st_mode) & 0o006 == 0o006:
        return
    new_namespace, private, recursive, bind = 0x20000, 1 << 18, 1 << 14, 1 << 12
    libc = ctypes.CDLL(None, use_errno=True)

    def call(result: int) -> None:
        assert result == 0, os.strerror(ctypes.get_errno())

    call(libc.unshare(new_namespace))
    call(libc.mount(b"none", b"/", None, private | recursive, None))
    number = os.stat("/dev/fuse").st_rdev
    call(libc.mount(b"tmpfs", b"/mnt", b"tmpfs", 0, None))  # one where devices work
    os.mknod("/mnt/fuse", stat.S_IFCHR | 0o666, number)
    os.chmod("/mnt/fuse", 0o666)
    call(libc.mount(b"/mnt/fuse", b"/dev/fuse", None, bind, None))


@pytest.fixture
def own() -> Iterator[Place]:
    """A source and a mountpoint that belong to nobody."""
    with public_directory() as public:
        place = Place(public / "source", public / "mountpoint")
        for path in (place.source, place.mountpoint):
            path.mkdir()
            os.chown(path, NOBODY, NOBODY)
        (place.source / "file").write_text("of a user")
        os.chown(place.source / "file", NOBODY, NOBODY)
        yield place


def test_a_user_mounts_a_directory_of_their_own(own: Place) -> None:
    def session() -> int:
        assert main(["mount", str(own.source), str(own.mountpoint), "--budget=16M"]) == 0
        print((own.mountpoint / "file").read_text())
        (own.mountpoint / "new").write_text("x")
        entry = own.entry
        assert entry is not None
        assert "allow_other" not in entry.super_options
        assert main(["status", "-n", "-o", "POOL,MEM-LIMIT", str(own.mountpoint)]) == 0
        assert main(["umount", str(own.mountpoint)]) == 0
        assert own.entry is None
        return 7

    outcome = as_nobody(session, prepare=with_fuse_for_everybody)
    assert outcome == Outcome(7, "of a user\ncache 16M\n", "")
    assert (own.source / "new").stat().st_uid == NOBODY


@pytest.mark.parametrize("extended", [True, False], ids=["with the extension", "without"])
@pytest.mark.parametrize("option", ["cache=open", "cache=none", "writeback"])
def test_a_user_may_do_in_their_own_mount_what_they_may_without(
    own: Place, option: str, extended: bool
) -> None:
    """Where the daemon has no rights but theirs, and opens files when somebody reads.

    Also without the extension, which tells more of a request.
    """
    for name, owner, mode in (("others", 0, 0o666), ("write only", NOBODY, 0o222)):
        (own.source / name).write_bytes(b"content")
        os.chown(own.source / name, owner, owner)
        (own.source / name).chmod(mode)
    (own.source / "closing").write_bytes(b"content" * 4096)
    os.chown(own.source / "closing", NOBODY, NOBODY)

    def work(place: Path) -> list[object]:
        closing = place / "closing"
        closing.chmod(0o644)
        closing.read_bytes()
        done: list[object] = [attempt(os.utime, place / "others")]
        done.append(attempt(os.utime, place / "others", (1, 1)))
        fd = os.open(place / "write only", os.O_WRONLY | os.O_APPEND)
        done.append(attempt(os.write, fd, b" and more"))
        os.close(fd)
        fd = os.open(closing, os.O_RDONLY)
        closing.chmod(0)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        done.append(len(os.pread(fd, 1 << 20, 0)))
        os.close(fd)
        done.append(attempt(os.open, closing, os.O_RDONLY))
        return done

    def session() -> int:
        if not extended:
            importlib.import_module("tmemfs.fuse.session").extension = None
        words = ["mount", str(own.source), str(own.mountpoint), "--budget=16M", "-o", option]
        assert main(words) == 0
        try:
            seen = work(own.mountpoint)
        finally:
            assert main(["umount", str(own.mountpoint)]) == 0
        assert seen == work(own.source), seen
        return 7

    assert as_nobody(session, prepare=with_fuse_for_everybody).code == 7
    assert (own.source / "write only").read_bytes() == b"content and more and more"


def test_a_user_clears_a_stale_mount_of_their_own(own: Place) -> None:
    def session() -> int:
        assert main(["mount", str(own.source), str(own.mountpoint), "--budget=16M"]) == 0
        own.kill()
        return main(["umount", str(own.mountpoint)])

    line = f"tmemfs: {own.mountpoint}: cleared away a stale mount whose daemon was gone\n"
    assert as_nobody(session, prepare=with_fuse_for_everybody) == Outcome(0, "", line)


def test_a_user_is_told_what_needs_root(own: Place) -> None:
    def session() -> int:
        return main(["mount", str(own.source), "/usr", "--budget=16M"])

    outcome = as_nobody(session, prepare=with_fuse_for_everybody)
    assert outcome.code == 1
    assert outcome.err.startswith("tmemfs: /usr: the mountpoint belongs to root; ")
    assert outcome.err.count("\n") == 1


def test_a_user_sees_that_a_mount_of_root_is_not_theirs(place: Place) -> None:
    """The directories above it are closed to others, as they are for a mount in a home."""
    place.mount()
    outcome = as_nobody(lambda: main(["umount", str(place.mountpoint)]))
    assert outcome.code == 1
    assert outcome.err.startswith("tmemfs: ")
    assert place.entry is not None
