"""`tmemfs drop`: nothing of a file is in memory any more, and nothing of it is lost."""

import errno
import importlib
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from as_root import as_nobody, public_directory, tmpfs_at
from command import COMMAND, run
from mounting import Mounted, mounted, wait_for

from tmemfs.cli.main import main

# What main() imports when it is used, a process that drops its privileges may not find any more.
importlib.import_module("tmemfs.cli.commands.drop")

pytestmark = [
    pytest.mark.root,
    # What runs without privileges is a fork of this process, and uses no thread of it.
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

SIZE = 200_000
PAGES = -(-SIZE // 8192)


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mounted]:
    """A mount with some files, of which nothing has been read."""
    source = tmp_path / "source"
    for name in ("file", "other", "tree/a", "tree/deep/b", "tree/c"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(os.urandom(SIZE))
    with mounted(source, tmp_path / "mount", "--budget=16M", "--swap=s=1M") as mount:
        yield mount


def gets(mount: Mounted) -> int:
    """How many pages the daemon was asked for so far."""
    return int(mount.pool("cache")["gets"])


def read(mount: Mounted, *names: str) -> int:
    """Read files; how many pages the daemon was asked for: none that the kernel has."""
    before = gets(mount)
    for name in names:
        assert (mount.path / name).read_bytes() == (mount.source / name).read_bytes()
    return gets(mount) - before


def pages(mount: Mounted) -> int:
    return int(mount.pool("cache")["pages"])


def keep(mount: Mounted, *names: str, count: int) -> None:
    """Read files, and return when the mount keeps `count` pages, as it will from then on."""
    read(mount, *names)
    wait_for("they are kept", lambda: pages(mount) == count)


def drop(*paths: object, code: int = 0) -> tuple[str, str]:
    outcome = run(*COMMAND, "drop", *paths, code=code)
    return outcome.out, outcome.err


def test_a_file_is_forgotten_here_and_in_the_kernel(mount: Mounted) -> None:
    keep(mount, "file", "other", count=2 * PAGES)
    wait_for("the kernel believes what it has", lambda: read(mount, "file", "other") == 0)
    assert drop(mount.path / "file") == ("1 file dropped, 200K of pages\n", "")
    assert pages(mount) == PAGES
    assert read(mount, "file") >= PAGES


def test_a_tree_is_forgotten(mount: Mounted) -> None:
    names = ("tree/a", "tree/deep/b", "tree/c")
    (mount.source / "tree" / "link").symlink_to("../other")
    os.link(mount.source / "tree" / "a", mount.source / "tree" / "again")
    keep(mount, *names, "other", count=4 * PAGES)
    drop(mount.path / "tree")
    assert pages(mount) == PAGES, "links are not followed"
    assert read(mount, *names) >= 3 * PAGES


def test_more_files_than_fit_in_one_go(mount: Mounted) -> None:
    many = mount.source / "many"
    many.mkdir()
    names = [f"many/{n}" for n in range(600)]
    for name in names:
        (mount.source / name).write_bytes(b"x")
    keep(mount, *names, count=600)
    drop(mount.path / "many", "--quiet")
    assert pages(mount) == 0
    assert read(mount, *names) >= 600


def test_a_mountpoint_is_everything_but_swap(mount: Mounted) -> None:
    names = ("file", "other", "tree/a")
    swapped = os.urandom(1 << 20)
    (mount.control / "swap" / "s").write_bytes(swapped)
    keep(mount, *names, count=3 * PAGES)
    assert drop(mount.path) == ("3 files dropped, 600K of pages\n", "")
    assert pages(mount) == 0
    assert (mount.control / "swap" / "s").read_bytes() == swapped
    assert read(mount, *names) >= 3 * PAGES


def test_a_file_that_is_open_and_mapped(mount: Mounted) -> None:
    with open(mount.path / "file", "r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        assert mapping[:] == (mount.source / "file").read_bytes()
        mapping[100:105] = b"dirty"
        drop(mount.path / "file")
        # What the kernel had still to write is written, and read anew where it was mapped.
        assert (mount.source / "file").read_bytes()[100:105] == b"dirty"
        before = gets(mount)
        assert mapping[:] == (mount.source / "file").read_bytes()
        assert gets(mount) > before
        file.write(b"more")
    assert (mount.source / "file").read_bytes()[:4] == b"more"


def test_another_filesystem_below_is_not_entered(mount: Mounted) -> None:
    with tmpfs_at(mount.path / "tree" / "below") as below:
        (below / "file").write_text("not ours")
        assert drop(mount.path / "tree")[1] == ""
        refused = drop(mount.path / "file", below / "file", code=2)
        assert refused == ("", f"tmemfs: {below}/file: is not on a tmemfs mount\n")


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("mount/none", "No such file or directory"),
        ("source/file", "is not on a tmemfs mount"),
        ("mount/.tmemfs/swap/s", "is no file of {source}"),
        ("mount/.tmemfs", "is no file of {source}"),
    ],
)
def test_what_cannot_be_dropped(mount: Mounted, path: str, says: str) -> None:
    keep(mount, "file", count=PAGES)
    place = mount.path.parent / path
    line = f"tmemfs: {place}: {says.format(source=mount.source)}\n"
    assert drop(mount.path / "file", place, code=2) == ("", line)
    assert pages(mount) == PAGES, "all are looked at before any is dropped"


def test_only_who_mounted_it_may(tmp_path: Path) -> None:
    with public_directory() as public:
        (public / "source").mkdir()
        (public / "source" / "file").write_text("x")
        with mounted(public / "source", public / "mount", "--budget=16M") as mount:
            keep(mount, "file", count=1)
            for path in (mount.path, mount.path / "file"):
                refused = as_nobody(lambda path=path: main(["drop", str(path)]))  # type: ignore[misc]
                assert refused.code == 1
                assert refused.err == f"tmemfs: {mount.control}/drop: Permission denied\n"
            assert pages(mount) == 1


def test_the_file_by_itself(mount: Mounted) -> None:
    order = mount.control / "drop"
    assert os.stat(order).st_mode & 0o7777 == 0o200
    keep(mount, "file", "other", "tree/a", count=3 * PAGES)
    for wrong in ("file", "-1", "1.5", "", "all 1"):
        with pytest.raises(OSError, match="Invalid argument") as caught:
            order.write_text(f"{wrong}\n")
        assert caught.value.errno == errno.EINVAL
    order.write_text(f"{1 << 40}\n")
    assert pages(mount) == 3 * PAGES
    numbers = [os.stat(mount.path / name).st_ino for name in ("file", "other")]
    order.write_text("\n".join(map(str, numbers)))
    assert pages(mount) == PAGES
    order.write_text("all")
    assert pages(mount) == 0
