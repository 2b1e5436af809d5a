"""Programs that people use do through a mount what they do in a plain directory."""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mounting import Mounted, drop_kernel_caches, mounted, wait_for
from programs import do, grow, project

pytestmark = pytest.mark.root

FILES = 2000
MODULES = 24


@pytest.fixture(scope="module", params=["default", "writeback"])
def mount(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mounted]:
    options = () if request.param == "default" else ("-o", request.param)
    place = tmp_path_factory.mktemp(request.param)
    (place / "source").mkdir()
    with mounted(place / "source", place / "m", "--budget=64M", *options) as mount:
        yield mount
        assert mount.status()["failsafe"]["count"] == 0


# -- SQLite ------------------------------------------------------------------------------------

WRITER = """
import sqlite3, sys
path, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
base = sqlite3.connect(path, timeout=60, isolation_level=None)
number = 0
while number < count or not count:
    base.execute("BEGIN IMMEDIATE")
    for _ in range(10):
        base.execute("INSERT INTO rows VALUES (?, ?, ?)", (name, number, name * (number % 300)))
        number += 1
    base.execute("COMMIT")
    print(number, flush=True)
"""


def new_base(path: Path, journal: str) -> None:
    base = sqlite3.connect(path)
    assert base.execute(f"PRAGMA journal_mode={journal}").fetchone() == (journal,)
    base.execute("CREATE TABLE rows (who TEXT, number INTEGER, text TEXT)")
    base.execute("CREATE UNIQUE INDEX every ON rows (who, number)")
    base.commit()
    base.close()


def rows(path: Path) -> dict[str, int]:
    """How many rows each writer has; they must be the first ones, whole, in a sound file."""
    base = sqlite3.connect(path)
    assert base.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    wrong = "SELECT count(*) FROM rows WHERE length(text) != length(who) * (number % 300)"
    assert base.execute(wrong).fetchone() == (0,)
    counted = "SELECT who, count(*), max(number) + 1 FROM rows GROUP BY who"
    found = {}
    for who, count, last in base.execute(counted):
        assert count == last
        found[who] = count
    base.close()
    return found


def writer(path: Path, name: str, count: int) -> "subprocess.Popen[str]":
    words = [sys.executable, "-c", WRITER, str(path), name, str(count)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("journal", ["delete", "truncate", "persist", "wal"])
def test_sqlite_with_several_writers(mount: Mounted, journal: str) -> None:
    path = mount.path / f"{journal}.db"
    new_base(path, journal)
    writers = [writer(path, name, 200) for name in ("a", "b", "c")]
    for process in writers:
        process.communicate(timeout=100)
        assert process.returncode == 0
    assert rows(path) == {"a": 200, "b": 200, "c": 200}
    # What is there is there behind the mount as well.
    drop_kernel_caches()
    assert rows(mount.source / path.name) == rows(path)


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_sqlite_after_a_writer_was_killed(mount: Mounted, journal: str) -> None:
    path = mount.path / f"killed-{journal}.db"
    new_base(path, journal)
    chooser = random.Random(5)
    least = 0
    for turn in range(5):
        process = writer(path, f"turn{turn}", 0)
        assert process.stdout is not None
        told = [int(process.stdout.readline()) for _ in range(chooser.randrange(1, 15))]
        process.send_signal(signal.SIGKILL)
        told += map(int, process.stdout.read().split())
        process.wait()
        process.stdout.close()
        found = rows(path)
        # All that was committed, and no half of what was not.
        assert told[-1] <= found[f"turn{turn}"] <= told[-1] + 10
        assert found[f"turn{turn}"] % 10 == 0
        least += told[-1]
    assert sum(rows(path).values()) >= least


# -- git ---------------------------------------------------------------------------------------


def test_git(mount: Mounted, tmp_path: Path) -> None:
    tree = mount.path / "tree"
    tree.mkdir()
    do("git", "init", "-q", tree)
    for name, value in (("user.name", "T"), ("user.email", "t@example.org"), ("gc.auto", "0")):
        do("git", "config", name, value, cwd=tree)
    grow(tree, FILES)
    do("git", "add", ".", cwd=tree)
    do("git", "commit", "-qm", "one", cwd=tree)
    for path in sorted(tree.glob("part1/**/*.txt")):
        path.write_text("changed " + path.read_text())
    assert len(do("git", "status", "--porcelain", cwd=tree).splitlines()) == FILES // 20
    do("git", "commit", "-qam", "two", cwd=tree)
    assert do("git", "status", "--porcelain", cwd=tree) == ""
    do("git", "clone", "-q", "--no-local", tree, mount.path / "clone")
    do("git", "gc", "-q", "--prune=now", cwd=tree)
    drop_kernel_caches()
    for repository in (tree, mount.path / "clone", mount.source / "tree"):
        do("git", "fsck", "--strict", "--full", cwd=repository)
        assert do("git", "rev-list", "--count", "HEAD", cwd=repository) == "2\n"
    # A clone of it on the bare disk has the same files, and a switch there and back changes all.
    do("git", "clone", "-q", "--no-local", tree, tmp_path / "bare")
    do("diff", "-r", "--no-dereference", "-x", ".git", tmp_path / "bare", mount.path / "clone")
    do("git", "checkout", "-q", "HEAD^", cwd=tree)
    do("git", "checkout", "-q", "-", cwd=tree)
    do("diff", "-r", "--no-dereference", "-x", ".git", tmp_path / "bare", tree)
    assert do("git", "status", "--porcelain", cwd=tree) == ""
    shutil.rmtree(tree)


# -- copies ------------------------------------------------------------------------------------


def test_rsync_and_tar(mount: Mounted, tmp_path: Path) -> None:
    bare = grow(tmp_path / "bare", 500)
    os.link(bare / "part1/sub1/file1.txt", bare / "part1/another name")
    with open(bare / "sparse", "wb") as file:
        file.truncate(3 << 20)
        file.seek(1 << 20)
        file.write(b"in the middle")
    os.utime(bare / "part2", ns=(5, 7))
    # To the nanosecond, which rsync else does not care for.
    rsync = ("rsync", "-aHAXc", "--modify-window=-1", "--itemize-changes", "--delete")
    assert len(do(*rsync, f"{bare}/", mount.path / "copy").splitlines()) > 500
    assert do(*rsync, f"{bare}/", mount.path / "copy") == ""
    assert do(*rsync, f"{mount.path}/copy/", bare) == ""
    drop_kernel_caches()
    assert do(*rsync, "--sparse", f"{bare}/", mount.path / "copy") == ""
    plain = "--pax-option=delete=atime,delete=ctime,exthdr.name=%d/%f"
    options = ("--sort=name", "--format=posix", plain, "-S")
    archives = [tmp_path / "bare.tar", mount.path / "mount.tar"]
    for archive, place in zip(archives, (bare, mount.path / "copy"), strict=True):
        do("tar", *options, "-cf", archive, "-C", place, "part1", "part2", "part3")
    assert archives[0].read_bytes() == archives[1].read_bytes()
    (mount.path / "unpacked").mkdir()
    do("tar", "-xpf", archives[1], "-C", mount.path / "unpacked")
    do("tar", "-df", archives[1], "-C", mount.path / "unpacked")
    for name in ("copy", "unpacked"):
        shutil.rmtree(mount.path / name)


# -- a compile ---------------------------------------------------------------------------------


def test_compile(mount: Mounted, tmp_path: Path) -> None:
    """Built in parallel, and built again: no more than what has changed, as in a directory."""
    results = []
    for place in (project(tmp_path / "bare", MODULES), project(mount.path / "project", MODULES)):
        said = [len(do("make", "-j4", cwd=place).splitlines()), do(place / "program")]
        said.append("up to date" in do("make", "-j4", cwd=place))
        # Newer than what was made of it, whatever the clock's steps.
        made = os.stat(place / "program").st_mtime_ns
        header = place / "m3.h"
        wait_for(
            "the clock has moved on",
            lambda header=header, made=made: (
                header.write_text("int f3(int);\n#define ADDS3 1000\n")
                and os.stat(header).st_mtime_ns > made
            ),
        )
        said.append(sorted(do("make", "-j4", cwd=place).splitlines()))
        said.append(do(place / "program"))
        said.append("up to date" in do("make", "-j4", cwd=place))
        results.append(said)
    assert results[1] == results[0]
    assert results[0][2] is results[0][5] is True
    assert results[0][1] != results[0][4]
