"""A great many names: few descriptors, little memory for each, and whatever walks a tree works.

``TMEMFS_TEST_SCALE=300000 pytest tests/mount/test_scale.py -s`` is the long form.
"""

import os
import resource
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from mounting import Mounted, mounted, wait_for

pytestmark = pytest.mark.root

FILES = int(os.environ.get("TMEMFS_TEST_SCALE", "20000"))
PER_DIRECTORY = 50
KNOWN = 1024
"""bytes of memory for each inode that the kernel knows, at most"""
SLACK = (16 << 20) + 100 * FILES
"""bytes that the interpreter may keep of what it once needed: blocks that are in use in part"""
DESCRIPTORS = 1024

# How a daemon starts that may have few descriptors and may open nothing by file handle.
FEW_RIGHTS = f"""
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({DESCRIPTORS}, {DESCRIPTORS}))
without = ["--bounding-set=-dac_read_search", "--inh-caps=-dac_read_search"]
program = [sys.executable, "-m", "tmemfs", *sys.argv[1:]]
os.execvp("setpriv", ["setpriv", *without, *program])
"""
FEW_DESCRIPTORS = f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({DESCRIPTORS}, {DESCRIPTORS}))
"""
CAP_DAC_READ_SEARCH = 2


def grow(place: Path, files: int) -> Path:
    """A tree of so many small files."""
    for first in range(0, files, PER_DIRECTORY):
        number = first // PER_DIRECTORY
        directory = place / f"part{number % 40}" / f"directory{number}"
        directory.mkdir(parents=True)
        for file in range(first, min(first + PER_DIRECTORY, files)):
            (directory / f"file{file}").write_text(f"file {file}\n")
    return place


def do(*words: object) -> list[str]:
    """Run a program, which must succeed; return its lines, and print how long it took."""
    start = time.monotonic()
    done = subprocess.run([str(w) for w in words], check=True, stdout=subprocess.PIPE, text=True)
    print(f"{' '.join(str(word) for word in words[:4])}: {time.monotonic() - start:.1f} s")
    return done.stdout.splitlines()


def descriptors(mount: Mounted) -> int:
    return len(os.listdir(f"/proc/{mount.process.pid}/fd"))


def in_pool(mount: Mounted) -> int:
    """Bytes that the pages of files take, which is not for names."""
    memory = mount.status()["memory"]
    return int(memory["mem_used_total"] + memory["metadata_bytes"])


def known(mount: Mounted) -> int:
    return int(mount.status()["cache"]["known_inodes"])


def forgotten(mount: Mounted) -> int:
    """Let the kernel forget what it need not know; return how many inodes it knows still."""
    seen = [known(mount)]

    def at_rest() -> bool:
        Path("/proc/sys/vm/drop_caches").write_text("2")
        seen.append(known(mount))
        return seen[-1] == seen[-2] < 1000

    wait_for("the kernel has forgotten", at_rest)
    return seen[-1]


def test_a_large_tree(tmp_path: Path) -> None:
    source = tmp_path / "source"
    grow(source, FILES)
    git = ("git", "-C")
    do(*git, source, "init", "-q")
    do(*git, source, "add", ".")
    want = sorted(do("find", source, "-path", "*/.git", "-prune", "-o", "-printf", "%P %y %s %i\n"))
    with mounted(source, tmp_path / "m", "--budget=16M") as mount:
        before = mount.resident() - in_pool(mount)

        def within_bounds() -> None:
            number, grown = known(mount), mount.resident() - before - in_pool(mount)
            print(f"{number} inodes known, {grown / max(number, 1):.0f} bytes each", end=", ")
            print(f"{grown >> 20} MiB in all, {descriptors(mount)} descriptors")
            assert grown <= number * KNOWN + SLACK
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            assert descriptors(mount) <= limit // 2 + 100

        find = ("find", mount.path, "-path", "*/.git", "-prune", "-o", "-printf", "%P %y %s %i\n")
        assert len(want) > FILES
        # The mount's root has a number of its own kind; all others have the directory's.
        assert sorted(do(*find))[1:] == want[1:]
        within_bounds()
        assert sorted(do(*find))[1:] == want[1:]
        status = do(*git, mount.path, "status", "--porcelain")
        assert len(status) == FILES
        assert {line[:3] for line in status} == {"A  "}
        within_bounds()
        forgotten(mount)
        within_bounds()
        do("rm", "-r", *mount.path.glob("part*"))
        assert [path.name for path in source.iterdir()] == [".git"]
        within_bounds()


def test_a_large_directory(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    number = min(FILES, 100_000)
    for name in range(number):
        os.mknod(source / f"name {name}")
    with mounted(source, tmp_path / "m", "--budget=16M") as mount:
        assert sorted(os.listdir(mount.path)) == sorted(os.listdir(source))
        # While most of it is removed, what stays is listed, and once.
        kept = set()
        with os.scandir(mount.path) as entries:
            for entry in entries:
                if int(entry.name.split()[1]) % 10:
                    os.unlink(entry.path)
                else:
                    assert entry.name not in kept
                    kept.add(entry.name)
        assert kept == set(os.listdir(source)) == {f"name {n}" for n in range(0, number, 10)}


@pytest.mark.parametrize("before", [FEW_DESCRIPTORS, FEW_RIGHTS], ids=["by handle", "by name"])
def test_few_descriptors_for_many_inodes(before: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    files = FILES // 5
    grow(source, files)
    with mounted(source, tmp_path / "m", "--budget=16M", before=before) as mount:
        status = Path(f"/proc/{mount.process.pid}/status").read_text()
        [rights] = [line.split()[1] for line in status.splitlines() if line.startswith("CapEff")]
        assert bool(int(rights, 16) >> CAP_DAC_READ_SEARCH & 1) == (before == FEW_DESCRIPTORS)
        # All are held by somebody, so that the kernel cannot forget them.
        held = [
            os.open(path, os.O_PATH)
            for path in sorted(mount.path.glob("part*/*/*"))[: _may_hold(files)]
        ]
        try:
            assert known(mount) >= len(held)
            assert descriptors(mount) <= DESCRIPTORS
            # What leads to them moves, twice, and they are where they were to who holds them.
            for part in mount.path.glob("part*"):
                for directory in part.iterdir():
                    directory.rename(part / f"renamed {directory.name}")
                part.rename(mount.path / f"other {part.name}")
            numbers = set()
            for fd in held:
                with open(f"/proc/self/fd/{fd}") as file:
                    numbers.add(file.read())
            assert len(numbers) == len(held)
            assert all(text.startswith("file ") for text in numbers)
            # And while many are open.
            some = [open(f"/proc/self/fd/{fd}") for fd in held[:300]]  # noqa: SIM115
            assert {file.read() for file in some} <= numbers
            for file in some:
                file.close()
            assert descriptors(mount) <= DESCRIPTORS
        finally:
            for fd in held:
                os.close(fd)
        shutil.rmtree(next(mount.path.glob("other part*")))


def _may_hold(files: int) -> int:
    return min(files, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 500, 4000)


@pytest.mark.parametrize("before", [FEW_DESCRIPTORS, FEW_RIGHTS], ids=["by handle", "by name"])
def test_deep_directories(before: str, tmp_path: Path) -> None:
    """Deeper than there are descriptors for inodes: on the way down the way back is lost."""
    source = tmp_path / "source"
    source.mkdir()
    depth = DESCRIPTORS // 2 + 200
    here = os.open(".", os.O_RDONLY)
    try:
        with mounted(source, tmp_path / "m", "--budget=16M", before=before) as mount:
            os.chdir(mount.path)
            for number in range(depth):
                os.mkdir(f"{number}")
                os.chdir(f"{number}")
            Path("bottom").write_text("deep")
            top = os.open(mount.path / "0", os.O_RDONLY)
            assert descriptors(mount) <= DESCRIPTORS
            os.rename(mount.path / "0", mount.path / "moved")
            for number in range(depth - 1, 0, -1):
                os.chdir("..")
                assert os.listdir(".") == [f"{number}"]
            assert os.path.samestat(os.stat("."), os.fstat(top))
            os.close(top)
            os.fchdir(here)
            assert len(do("find", mount.path / "moved", "-type", "d")) == depth
            assert do("find", source, "-name", "bottom")[0].startswith(str(source / "moved/1/2/3"))
            do("rm", "-r", mount.path / "moved")
            assert os.listdir(source) == []
    finally:
        os.fchdir(here)
        os.close(here)


def test_who_lists_a_part_of_a_directory_leaves_nothing_behind(tmp_path: Path) -> None:
    """What was looked up for the next part of the answer, nobody has heard of."""
    source = tmp_path / "source"
    source.mkdir()
    for number in range(3000):
        (source / f"file{number}").touch()
    with mounted(source, tmp_path / "m", "--budget=16M") as mount:
        for count in range(1, 100, 7):
            with os.scandir(mount.path) as entries:
                for _ in range(count):
                    next(entries)
        assert known(mount) > 3
        assert forgotten(mount) <= 3
        assert len(os.listdir(mount.path)) == 3000
