"""What runs short in the daemon is waited for; what one user takes is not all that there is."""

import errno
import os
import re
import secrets
import shlex
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from as_root import public_directory
from command import COMMAND
from command import run as run_command
from faulty import FaultyBacking, over_faulty, read_direct
from memory_limit import V1, MemoryLimit
from mounting import SECONDS, mounted, wait_for
from page_data import run
from posix_cases.runner import ALICE, BOB, as_user, attempt
from rig import left_alone

from tmemfs.errors import SystemFailure
from tmemfs.linux import system

pytestmark = pytest.mark.root

PIDS = Path("/sys/fs/cgroup/pids")
READERS = 60


@contextmanager
def few_tasks(process: int, most: int) -> Iterator[None]:
    """Let a process have no more than so many tasks."""
    group = PIDS / f"tmemfs-{secrets.token_hex(4)}"
    group.mkdir()
    try:
        (group / "pids.max").write_text(str(most))
        (group / "cgroup.procs").write_text(str(process))
        yield
        (PIDS / "cgroup.procs").write_text(str(process))
    finally:
        wait_for("nobody is in it", lambda: attempt(group.rmdir) != "EBUSY")


@pytest.mark.skipif(not (PIDS / "cgroup.procs").exists(), reason="no pids cgroup of version 1")
@pytest.mark.parametrize("more", [1, 4], ids=["not one thread", "a few threads"])
def test_no_more_threads(tmp_path: Path, more: int) -> None:
    content = run(3, READERS)
    with (
        over_faulty(tmp_path, logs=True) as (backing, mount),
        ThreadPoolExecutor(READERS) as readers,
    ):
        for number in range(READERS):
            (backing.under / str(number)).write_bytes(content)
        tasks = len(os.listdir(f"/proc/{mount.process.pid}/task"))
        with few_tasks(mount.process.pid, tasks + more - 1):
            found = readers.map(lambda n: (mount.path / str(n)).read_bytes(), range(READERS))
            assert list(found) == [content] * READERS
        assert mount.status()["failsafe"]["count"] == 0
        # Once in a while, not for each of them.
        assert (more == 1) <= mount.log().count("no more threads") < READERS // 4


def few_descriptors(most: int) -> str:
    """What lets a mount have no more than so many."""
    return f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({most}, {most}))"


def test_no_more_descriptors(tmp_path: Path) -> None:
    """Who looks at names waits until others have closed theirs, however long that takes."""
    names = [str(number) for number in range(READERS)]
    options = ("--budget=32M", "-o", "entry_timeout=1000")
    with (
        FaultyBacking(tmp_path) as backing,
        mounted(
            backing.path, tmp_path / "m", *options, before=few_descriptors(64), logs=True
        ) as mount,
        ThreadPoolExecutor(READERS) as others,
    ):
        for name in names:
            # Each in a directory of its own, in which no other lookup waits for it.
            (backing.under / name).mkdir()
            (backing.under / name / "file").write_text(name)
            os.stat(mount.path / name)
        backing.inject("*", "lookup", hang=True)
        try:
            found = [others.submit(os.stat, mount.path / name / "file") for name in names]
            wait_for("there are no more", lambda: "no more descriptors" in mount.log())
        finally:
            backing.mend()
        assert [one.result(SECONDS).st_size for one in found] == [len(name) for name in names]
        assert mount.status()["failsafe"]["count"] == 0


def test_too_few_descriptors_for_a_mount(tmp_path: Path) -> None:
    for name in ("source", "m"):
        (tmp_path / name).mkdir()
    command = shlex.join(map(str, (*COMMAND, "mount", tmp_path / "source", tmp_path / "m")))
    said = run_command("sh", "-c", f"ulimit -n 40; exec {command}", code=2).err
    assert said == "tmemfs: 40 descriptors are too few; raise 'ulimit -n' to 64 or more\n"
    assert system.mount_at(str(tmp_path / "m")) is None


def test_who_has_a_file_open_can_read_it(tmp_path: Path) -> None:
    """Also where it is opened in earnest, on a local disk, when something is missing."""
    (tmp_path / "source").mkdir()
    paths = [tmp_path / "m" / str(number) for number in range(40)]
    content = run(7, 1)
    with mounted(
        tmp_path / "source", tmp_path / "m", "--budget=16M", before=few_descriptors(96)
    ) as mount:
        for path in paths:
            (mount.source / path.name).write_bytes(content)
            left_alone(mount.source / path.name)
        for _ in range(2):
            assert {read_direct(path, 0, len(content)) for path in paths} == {content}
        held, refused = [], []
        for path in paths:
            try:
                held.append(os.open(path, os.O_RDONLY | os.O_DIRECT))
            except OSError as error:
                refused.append(error.errno)
        assert mount.pool("cache")["pages"]
        run_command(*COMMAND, "drop", mount.path)
        try:
            assert {os.pread(fd, len(content), 0) for fd in held} == {content}
        finally:
            for fd in held:
                os.close(fd)
        assert len(held) > 20
        assert set(refused) == {errno.ENFILE}
        assert {read_direct(path, 0, len(content)) for path in paths} == {content}


def test_one_user_does_not_take_all_descriptors(tmp_path: Path) -> None:
    with public_directory() as top:
        (top / "source").mkdir(mode=0o777)
        (top / "source").chmod(0o777)
        for number in range(400):
            (top / "source" / str(number)).touch()
            (top / "source" / str(number)).chmod(0o666)
        with mounted(
            top / "source", top / "m", "--budget=16M", before=few_descriptors(256)
        ) as mount:

            def with_others() -> list[object]:
                """While the first one holds all that it gets."""
                reading, writing = os.pipe()
                pid = os.fork()
                if pid == 0:
                    try:
                        os.setgid(ALICE)
                        os.setuid(ALICE)
                        held, code = [], 0
                        try:
                            while True:
                                held.append(os.open(mount.path / str(len(held)), os.O_RDWR))
                        except OSError as error:
                            code = error.errno or 0
                        os.write(writing, bytes([min(len(held), 255), code]))
                        os.read(os.open(top / "wait", os.O_RDONLY), 1)
                        os._exit(0)
                    finally:
                        os._exit(1)
                got, code = os.read(reading, 2)
                words = [sys.executable, "-m", "tmemfs", "status", str(mount.path)]
                status = subprocess.run(words, capture_output=True, check=False).returncode
                others = as_user(BOB, lambda: attempt((mount.path / "399").write_text, "of B"))
                figures = (mount.control / "metrics").read_text()
                (top / "wait").open("w").close()
                os.waitpid(pid, 0)
                return [got > 10, code, status, others, "tmemfs" in figures]

            os.mkfifo(top / "wait")
            assert with_others() == [True, errno.ENFILE, 0, 4, True]
            assert mount.status()["failsafe"]["count"] == 0
            # What was closed can be had again.
            with open(mount.path / "1", "r+"):
                pass


def starter(limit: str, soft: int, hard: int) -> str:
    """What the shell of whoever starts a mount has set."""
    return (
        "import resource, signal\n"
        f"resource.setrlimit(resource.{limit}, ({soft}, {hard}))\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))\n"
    )


def test_limits_of_whoever_started_it(tmp_path: Path) -> None:
    """They do not end it, fail what others write, or keep signals from it."""
    (tmp_path / "source").mkdir()
    for limit, soft in (("RLIMIT_FSIZE", 4096), ("RLIMIT_CPU", 3600)):
        before = starter(limit, soft, -1)
        with mounted(tmp_path / "source", tmp_path / "m", "--budget=16M", before=before) as mount:
            limits = Path(f"/proc/{mount.process.pid}/limits").read_text()
            assert re.search(r"^Max file size +unlimited +unlimited", limits, re.MULTILINE)
            assert re.search(r"^Max cpu time +unlimited +unlimited", limits, re.MULTILINE)
            (mount.path / "file").write_bytes(bytes(64 << 10))
            assert (mount.source / "file").stat().st_size == 64 << 10
            mount.process.terminate()
            assert mount.process.wait(SECONDS) == 0


def test_a_limit_that_stays_is_told(tmp_path: Path) -> None:
    """One that only CAP_SYS_RESOURCE can lift."""
    (tmp_path / "source").mkdir()
    before = starter("RLIMIT_FSIZE", 4096, 1 << 20) + (
        "import ctypes\nassert ctypes.CDLL(None).prctl(24, 24, 0, 0, 0) == 0\n"  # the bounding set
        "import os, sys\n"
        "if not os.environ.get('WITHOUT'):\n"
        "    os.environ['WITHOUT'] = 'yes'\n"
        "    os.execv(sys.executable, [sys.executable, '-m', 'tmemfs', *sys.argv[1:]])\n"
    )
    with mounted(
        tmp_path / "source", tmp_path / "m", "--budget=16M", before=before, logs=True
    ) as mount:
        assert "ulimit -f" in mount.log()
        (mount.path / "file").write_bytes(bytes(64 << 10))
        assert (mount.source / "file").stat().st_size == 64 << 10


@pytest.mark.skipif(not (V1 / "memory.limit_in_bytes").exists(), reason="no memory cgroup of v1")
def test_the_memory_of_a_cgroup(tmp_path: Path) -> None:
    """The default budget, percentages, and what is too much: by the limit, not by the machine."""
    with MemoryLimit(512 << 20) as limit:
        program = (
            "from tmemfs import config, units\n"
            "print(config.default_budget(), units.parse_size('50%'))"
        )
        said = subprocess.check_output(limit.command([sys.executable, "-c", program]), text=True)
        assert [int(word) for word in said.split()] == [128 << 20, 256 << 20]
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        words = [sys.executable, "-m", "tmemfs", "mount", tmp_path / "a", tmp_path / "b"]
        done = subprocess.run(
            limit.command([*map(str, words), "--budget=1G"]),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert done.stderr == (
            "tmemfs: budget: 1G is more than the 512M of memory its cgroup permits\n"
        )


def test_limits_of_both_versions_and_of_all_above(tmp_path: Path) -> None:
    groups = tmp_path / "cgroup"
    groups.write_text("4:cpu:/x\n3:memory:/a/b\n0::/c/d\n")
    for place, text in {
        "memory/a/memory.limit_in_bytes": "7000",
        "memory/a/b/memory.limit_in_bytes": str(1 << 62),
        "memory/memory.limit_in_bytes": "9000",
        "c/memory.max": "6000",
        "c/d/memory.max": "max",
        "unified/c/d/memory.max": "5000",
        "cpu/x/memory.max": "1",
    }.items():
        path = tmp_path / "top" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    found = system.memory_limits(str(groups), str(tmp_path / "top"))
    assert sorted(found) == [5000, 6000, 7000, 9000, 1 << 62]
    assert system.memory_limits(str(tmp_path / "none"), str(tmp_path)) == []


@pytest.mark.parametrize("room", ["enough for the budget", "too little"])
def test_a_limit_of_address_space(tmp_path: Path, room: str) -> None:
    size = "1536 << 20" if room == "enough for the budget" else "400 << 20"
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({size}, {size}))"
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_text("content")
    if room == "enough for the budget":
        with mounted(tmp_path / "source", tmp_path / "m", "--budget=256M", before=limit) as mount:
            assert (mount.path / "file").read_text() == "content"
        return
    (tmp_path / "m").mkdir()
    program = limit + "\nimport sys\nfrom tmemfs.cli.main import main\nsys.exit(main())"
    words = ["mount", tmp_path / "source", tmp_path / "m", "-f", "--budget=512M"]
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == SystemFailure.exit_code
    assert done.stderr.startswith("tmemfs: budget: 512M of address space are refused; raise ")
    assert done.stderr.count("\n") == 1
    assert system.mount_at(str(tmp_path / "m")) is None
