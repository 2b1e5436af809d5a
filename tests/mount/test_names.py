"""Names and attributes of a source far away: believed for a moment, never against what we did."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from faulty import over_faulty
from mounting import drop_kernel_caches, wait_for

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


def test_a_file_that_is_replaced_behind_the_mount_is_not_stale(tmp_path: Path) -> None:
    """What leads to an inode that has gone does so once at most; the kernel asks again."""
    with over_faulty(tmp_path) as (backing, mount):
        behind, seen = backing.under / "d", mount.path / "d"
        fill(behind)
        for number in range(5):
            look(seen, [name for name in NAMES if name != "f12"])
            (behind / "new").write_bytes(b"%d" % number)
            os.rename(behind / "new", behind / "f12")
            assert (seen / "f12").read_bytes() in (b"%d" % number, b"%d" % (number - 1))
            wait_for("it is seen", lambda: (seen / "f12").read_bytes() == b"%d" % number)  # noqa: B023


def test_what_others_append_is_not_written_over(tmp_path: Path) -> None:
    with over_faulty(tmp_path) as (backing, mount):
        log = backing.under / "log"
        log.write_bytes(b"one")
        os.stat(mount.path / "log")
        with open(log, "ab") as other:
            other.write(b"two")
        with open(mount.path / "log", "ab", buffering=0) as ours:
            os.fstat(ours.fileno())
            with open(log, "ab") as other:
                other.write(b"three")
            ours.write(b"four")
        assert log.read_bytes() == b"onetwothreefour"


def test_an_open_sees_all_that_there_is(tmp_path: Path) -> None:
    """Also where others have it open, and were told of older attributes of late."""
    with over_faulty(tmp_path) as (backing, mount):
        for number in range(8):
            behind, seen = backing.under / f"f{number}", mount.path / f"f{number}"
            behind.write_bytes(bytes(100))
            with open(seen, "rb", buffering=0) as first:
                assert len(first.read(50)) == 50
                behind.write_bytes(b"x" * 200)
                drop_kernel_caches()
                os.stat(seen)
                first.read(10)
                os.fstat(first.fileno())
                assert seen.read_bytes() == b"x" * 200
