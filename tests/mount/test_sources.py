"""Other people's programs do on a mount over what people have what they do on the bare source."""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from as_root import public_directory
from mounting import Mounted, drop_kernel_caches, mounted
from programs import ENVIRONMENT, do, grow, project
from sources import SOURCES, Source

pytestmark = pytest.mark.root

MODES = {
    "open": (),
    "none": ("-o", "cache=none"),
    "always": ("-o", "cache=always"),
    "writeback": ("-o", "writeback"),
}
QUICK = [("bindfs", "open"), ("sshfs", "open"), ("sshfs of nobody", "open"), ("overlay", "open")]


class Place(NamedTuple):
    source: Source
    mount: Mounted
    mode: str


def _places() -> Iterator[object]:
    for kind in (*SOURCES, "nested"):
        for mode in MODES:
            marks = () if (kind, mode) in QUICK else (pytest.mark.thorough,)
            yield pytest.param((kind, mode), marks=marks, id=f"{kind}, {mode}")


@pytest.fixture(scope="module", params=_places())
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    kind, mode = request.param
    with public_directory() as top:
        options = ("--budget=64M", "-o", "dev,suid", *MODES[mode])
        if kind == "nested":
            (top / "outer" / "sub").mkdir(parents=True)
            with (
                SOURCES["ext4"](top) as source,
                _bound(source.path, top / "outer" / "sub"),
                mounted(top / "outer", top / "mount", *options) as mount,
            ):
                mount.path, mount.source = mount.path / "sub", mount.source / "sub"
                yield Place(Source(mount.source, mount.source), mount, mode)
                mount.path = mount.path.parent
                assert mount.status()["failsafe"]["count"] == 0
            return
        with (
            SOURCES[kind](top) as source,
            mounted(source.path, top / "mount", *options) as mount,
        ):
            yield Place(source, mount, mode)
            assert mount.status()["failsafe"]["count"] == 0


class _bound:  # noqa: N801 - a context
    """A directory bound to another place, while the context lasts."""

    def __init__(self, path: Path, to: Path) -> None:
        self._path, self._to = path, to

    def __enter__(self) -> None:
        subprocess.run(["mount", "--move", self._path, self._to], check=True)

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "--lazy", self._to], check=True)


def test_removing_and_renaming(place: Place) -> None:
    """What was done is reported as done."""
    top = place.mount.path / "names"
    top.mkdir()
    for name in ("a", "b", "c"):
        (top / name).write_text(name)
    os.rename(top / "a", top / "b")
    assert (top / "b").read_text() == "a"
    with open(top / "c") as file:
        os.unlink(top / "c")
        assert file.read() == "c"
    (top / "d").mkdir()
    os.rmdir(top / "d")
    os.symlink("b", top / "l")
    os.unlink(top / "l")
    os.unlink(top / "b")
    assert os.listdir(top) == []
    os.rmdir(top)
    assert not (place.source.behind / "names").exists()


def test_git(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Whose the files are is the server's business.
    (tmp_path / "config").write_text("[safe]\n\tdirectory = *\n")
    monkeypatch.setitem(ENVIRONMENT, "GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
    tree = place.mount.path / "tree"
    do("git", "init", "-q", tree)
    for name, value in (("user.name", "T"), ("user.email", "t@example.org"), ("gc.auto", "0")):
        do("git", "config", name, value, cwd=tree)
    grow(tree, 60)
    do("git", "add", ".", cwd=tree)
    do("git", "commit", "-qm", "one", cwd=tree)
    (tree / "part1/sub1/file1.txt").write_text("changed")
    os.unlink(tree / "part2/sub2/file2.txt")
    assert len(do("git", "status", "--porcelain", cwd=tree).splitlines()) == 2
    do("git", "commit", "-qam", "two", cwd=tree)
    clone = place.mount.path / "clone"
    do("git", "clone", "-q", "--no-local", tree, clone)
    do("git", "gc", "-q", "--prune=now", cwd=tree)
    drop_kernel_caches()
    for repository in (tree, clone):
        do("git", "fsck", "--strict", "--full", cwd=repository)
    do("git", "checkout", "-q", "HEAD^", cwd=tree)
    do("git", "checkout", "-q", "-", cwd=tree)
    do("git", "clone", "-q", "--no-local", tree, tmp_path / "bare")
    do("diff", "-r", "--no-dereference", "-x", ".git", tmp_path / "bare", tree)
    assert do("git", "status", "--porcelain", cwd=tree) == ""
    shutil.rmtree(tree)
    shutil.rmtree(clone)


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    base = sqlite3.connect(path)
    if mode == "none":
        # With WAL all who use it share a mapping, which there is none of then.
        base.execute("PRAGMA locking_mode=EXCLUSIVE")
    return base


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_sqlite(place: Place, journal: str) -> None:
    path = place.mount.path / f"{journal}.db"
    base = _connect(path, place.mode)
    assert base.execute(f"PRAGMA journal_mode={journal}").fetchone() == (journal,)
    base.execute("CREATE TABLE rows (number INTEGER, text TEXT)")
    for number in range(30):
        with base:
            base.execute("INSERT INTO rows VALUES (?, ?)", (number, "x" * number * 100))
        if number % 10 == 3:
            base.rollback()
    base.execute("DELETE FROM rows WHERE number % 3 = 0")
    base.commit()
    base.execute("VACUUM")
    base.close()
    again = _connect(path, place.mode)
    assert again.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert again.execute("SELECT count(*), sum(length(text)) FROM rows").fetchone() == (
        20,
        sum(number * 100 for number in range(30) if number % 3),
    )
    again.close()
    os.unlink(path)


def test_sed_and_an_editor(place: Place) -> None:
    path = place.mount.path / "text"
    path.write_text("one\ntwo\n")
    do("sed", "-i", "s/two/three/", path)
    assert path.read_text() == "one\nthree\n"
    # As editors save: a new file in place of the old one, which stays under another name.
    new, old = path.with_name("text.new"), path.with_name("text~")
    with open(new, "w") as file:
        file.write("four\n")
        file.flush()
        os.fsync(file.fileno())
    os.rename(path, old)
    os.rename(new, path)
    assert (path.read_text(), old.read_text()) == ("four\n", "one\nthree\n")
    assert (place.source.behind / "text").read_text() == "four\n"
    os.unlink(old)
    os.unlink(path)


def test_rsync_and_tar(place: Place, tmp_path: Path) -> None:
    bare, copy = grow(tmp_path / "bare", 60), place.mount.path / "copy"
    # Times of links are set over sftp by following them.
    rsync = ("rsync", "-rltpJ", "--delete", "--itemize-changes", "--checksum")
    assert len(do(*rsync, f"{bare}/", copy).splitlines()) > 60
    shutil.rmtree(bare / "part3")
    (bare / "part4/sub4/file4.txt").write_text("changed")
    assert do(*rsync, f"{bare}/", copy)
    drop_kernel_caches()
    assert do(*rsync, f"{bare}/", copy) == ""
    archive = place.mount.path / "archive.tar"
    # Without links, whose times cannot be set over sftp.
    do("tar", "-cf", archive, "--exclude=*.link", "-C", copy, ".")
    unpacked = place.mount.path / "unpacked"
    unpacked.mkdir()
    do("tar", "-xf", archive, "--no-same-owner", "-C", unpacked)
    do("diff", "-r", "--exclude=*.link", bare, unpacked)
    for path in (copy, unpacked):
        shutil.rmtree(path)
    archive.unlink()


def test_make(place: Place, tmp_path: Path) -> None:
    results = []
    for path in (project(tmp_path / "bare", 4), project(place.mount.path / "project", 4)):
        do("make", "-j2", cwd=path)
        results.append((do(path / "program"), "up to date" in do("make", cwd=path)))
    assert results[1] == results[0]
    shutil.rmtree(place.mount.path / "project")
