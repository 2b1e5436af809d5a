"""T19 through a real mount, the kernel's own cache in between."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mounting import Mounted, drop_kernel_caches, mounted, wait_for
from page_data import run
from rig import left_alone

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    place = tmp_path_factory.mktemp("behind")
    (place / "source").mkdir()
    with mounted(place / "source", place / "m", "--budget=16M") as made:
        yield made


def rewrite(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(30_000)
        file.write(b"CHANGED")


def rewrite_and_restore_the_time(path: Path) -> None:
    """Nothing but the time of change tells, at which the kernel does not look."""
    info = os.stat(path)
    rewrite(path)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def truncate(path: Path) -> None:
    os.truncate(path, 20_001)


def extend(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"more" * 5000)


def cut_and_extend(path: Path) -> None:
    os.truncate(path, 100)
    os.truncate(path, 20 * 4096)


CHANGES = [rewrite, rewrite_and_restore_the_time, truncate, extend, cut_and_extend]


@pytest.mark.parametrize("change", CHANGES)
def test_t19_the_next_open_sees_a_change_behind(
    mount: Mounted, change: Callable[[Path], None]
) -> None:
    name = change.__name__
    (mount.source / name).write_bytes(run(1, 20))
    left_alone(mount.source / name)
    for _ in range(2):
        assert (mount.path / name).read_bytes() == run(1, 20)
    change(mount.source / name)
    want = (mount.source / name).read_bytes()
    assert (mount.path / name).read_bytes() == want != run(1, 20)
    drop_kernel_caches()
    assert (mount.path / name).read_bytes() == want


def test_t19_a_file_renamed_over_is_seen_when_the_name_is_looked_up_again(mount: Mounted) -> None:
    (mount.source / "over").write_bytes(run(2, 20))
    assert (mount.path / "over").read_bytes() == run(2, 20)
    (mount.source / "new").write_bytes(run(3, 20))
    os.rename(mount.source / "new", mount.source / "over")
    # One of the two, whole, until the kernel does not believe the name any more.
    wait_for("the new one", lambda: _either(mount.path / "over", 2, 3) == 3)


def _either(path: Path, *seeds: int) -> int:
    content = path.read_bytes()
    [seed] = [seed for seed in seeds if content == run(seed, 20)]
    return seed


def test_a_file_that_did_not_change_is_not_asked_for_again(mount: Mounted) -> None:
    """The kernel keeps its own pages; without them, they come out of the pool."""
    (mount.source / "same").write_bytes(run(4, 20))
    left_alone(mount.source / "same")
    (mount.path / "same").read_bytes()
    before = mount.pool("cache")
    assert (mount.path / "same").read_bytes() == run(4, 20)
    kept = mount.pool("cache")
    assert kept["gets"] == before["gets"]
    drop_kernel_caches()
    assert (mount.path / "same").read_bytes() == run(4, 20)
    found = mount.pool("cache")
    pages = 20 * 4096 // found["page_size"]
    assert found["found_gets"] - kept["found_gets"] == found["gets"] - kept["gets"] == pages
