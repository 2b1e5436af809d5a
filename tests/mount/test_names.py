"""Names and attributes of a source far away: believed for a moment, never against what we did."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from faulty import over_faulty
from mounting import drop_kernel_caches, mounted, wait_for

from benchmarks.cache.far import FAR

pytestmark = pytest.mark.root

SECONDS = 60
LONG = ("-o", "attr_timeout=1000,entry_timeout=1000")
NAMES = [f"f{number:02}" for number in range(20)]


@pytest.fixture
def other() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def fill(directory: Path) -> None:
    directory.mkdir()
    for number, name in enumerate(NAMES):
        (directory / name).write_bytes(bytes(number))


def look(directory: Path, names: list[str] = NAMES) -> dict[str, os.stat_result]:
    """Look names up one after the other, as `git status` does; what is known is asked for anew."""
    drop_kernel_caches()
    return {name: os.lstat(directory / name) for name in names}


def same(found: os.stat_result, real: os.stat_result) -> bool:
    kept = ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_mtime_ns", "st_ctime_ns")
    return all(getattr(found, name) == getattr(real, name) for name in kept)


def test_what_is_looked_up_in_order_is_listed(tmp_path: Path) -> None:
    with over_faulty(tmp_path, *LONG) as (backing, mount):
        fill(backing.under / "d")
        for name, found in look(mount.path / "d").items():
            assert same(found, os.lstat(backing.under / "d" / name))

        def asked() -> int:
            backing.forget()
            found = look(mount.path / "d")
            assert [found[name].st_size for name in NAMES] == list(range(len(NAMES)))
            return sum(len(backing.calls(f"d/{name}", "lookup")) for name in NAMES)

        wait_for("it is listed", lambda: asked() == 0)
        (mount.control / "drop").write_text("all")
        assert asked() > 0


def test_what_others_change_is_seen_after_a_moment(tmp_path: Path) -> None:
    with over_faulty(tmp_path) as (backing, mount):
        behind, seen = backing.under / "d", mount.path / "d"
        fill(behind)
        look(seen)
        (behind / "f03").unlink()
        os.rename(behind / "f04", behind / "f05")
        (behind / "new").touch()
        os.chmod(behind / "f06", 0o600)
        (behind / "f07").write_bytes(bytes(500))
        assert (seen / "new").exists()  # nobody has said that it is not there
        wait_for("a name has gone", lambda: not (seen / "f03").exists())
        wait_for("a name leads elsewhere", lambda: (seen / "f05").stat().st_size == 4)
        wait_for("the mode is seen", lambda: (seen / "f06").stat().st_mode & 0o777 == 0o600)
        wait_for("the size is seen", lambda: (seen / "f07").stat().st_size == 500)
        assert (seen / "f07").read_bytes() == bytes(500)
        assert (seen / "f05").read_bytes() == bytes(4)


THROUGH: dict[str, Callable[[Path], object]] = {
    "chmod": lambda d: os.chmod(d / "f03", 0o600),
    "utime": lambda d: os.utime(d / "f03", ns=(1, 2)),
    "write": lambda d: (d / "f03").write_bytes(bytes(100)),
    "append": lambda d: os.system(f"printf more >>'{d}/f03'"),
    "truncate": lambda d: os.truncate(d / "f03", 1),
    "rename": lambda d: os.rename(d / "f03", d / "renamed"),
    "replace": lambda d: os.rename(d / "f04", d / "f03"),
    "create": lambda d: (d / "new").write_bytes(b"new"),
    "mkdir": lambda d: (d / "new").mkdir(),
}


@pytest.mark.parametrize("change", THROUGH)
def test_what_we_change_is_seen_at_once(change: str, tmp_path: Path) -> None:
    """Although all that has not changed is believed for long."""
    with over_faulty(tmp_path, *LONG) as (backing, mount):
        behind, seen = backing.under / "d", mount.path / "d"
        fill(behind)
        before = os.lstat(behind)
        look(seen)
        THROUGH[change](seen)
        for _ in range(2):
            drop_kernel_caches()
            for name in (*NAMES, "new", "renamed"):
                assert os.path.lexists(seen / name) == os.path.lexists(behind / name), name
            for name in os.listdir(behind):
                assert same(os.lstat(seen / name), os.lstat(behind / name)), name
            assert same(os.lstat(seen), os.lstat(behind))
        assert before.st_mtime_ns <= os.lstat(behind).st_mtime_ns


def test_a_name_that_does_not_answer_holds_up_no_other(
    other: ThreadPoolExecutor, tmp_path: Path
) -> None:
    with over_faulty(tmp_path) as (backing, mount):
        fill(backing.under / "d")
        backing.inject("d/f12", "lookup", hang=True)
        rest = [name for name in NAMES if name != "f12"]
        found = other.submit(look, mount.path / "d", rest).result(SECONDS)
        assert [found[name].st_size for name in rest] == [int(name[1:]) for name in rest]
        stuck = other.submit(os.lstat, mount.path / "d/f12")
        assert sorted(os.listdir(mount.path)) == ["d"]
        assert not stuck.done()
        backing.mend()
        assert stuck.result(SECONDS).st_size == 12


@pytest.mark.skipif(FAR.lacking() is not None, reason=f"sshfs: {FAR.lacking()}")
def test_over_sshfs_a_name_that_is_not_there_is_asked_for_once(tmp_path: Path) -> None:
    for name in ("store", "far", "m"):
        (tmp_path / name).mkdir()
    with (
        FAR.store(tmp_path / "store") as store,
        FAR.directory(store, tmp_path / "far") as far,
        mounted(far.path, tmp_path / "m", "--budget=16M", *LONG) as mount,
    ):
        fill(store / "d")
        # Left alone for longer than a second, which is all that SFTP tells of a time.
        os.utime(store / "d", (1_000_000_000, 1_000_000_000))
        assert (mount.path / "d").is_dir()
        assert not (mount.path / "d/.gitignore").exists()
        before = far.requests()
        for _ in range(10):
            assert not (mount.path / "d/.gitignore").exists()
        assert far.requests() == before
        (mount.path / "d/.gitignore").touch()
        assert (mount.path / "d/.gitignore").exists()
