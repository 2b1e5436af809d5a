"""The work that is timed: each function does it below a directory, and returns seconds.

What programs take to start is in the times, and the same for all. Nothing waits for the disk: what
is read is in the kernel's memory, and what is written stays there.
"""

import compileall
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

Work = Callable[[Path], float]

BLOCK, LARGE = 4 << 10, 1 << 20
_FILE = 32 << 20


def timed(work: Callable[[], object]) -> float:
    """Seconds that *work* takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def program(*command: str | Path) -> Work:
    """The work of a program that is started in the directory."""
    return lambda place: timed(lambda: run(*command, cwd=place))


def run(*command: str | Path, cwd: Path) -> None:
    """Run a program; what it prints is of no interest."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(map(str, command))}: {done.stderr.strip()}")


def read_all(place: Path) -> float:
    """Open, read and close each file of ``small``."""
    names = sorted(os.listdir(place / "small"))
    directory = os.fspath(place / "small")

    def read() -> None:
        for name in names:
            fd = os.open(f"{directory}/{name}", os.O_RDONLY)
            os.read(fd, 1 << 16)
            os.close(fd)

    return timed(read)


def write_in_order(size: int) -> Work:
    """Write a file anew, *size* bytes at a time."""
    buffer = random.Random(1).randbytes(size)

    def work(place: Path) -> float:
        fd = os.open(place / "file", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        try:
            return timed(lambda: [os.write(fd, buffer) for _ in range(_FILE // size)])
        finally:
            os.close(fd)

    return work


def write_anywhere(place: Path) -> float:
    """Write 4 KiB at a time into a file that is there, in random order."""
    buffer = random.Random(2).randbytes(BLOCK)
    offsets = list(range(0, _FILE, BLOCK))
    random.Random(3).shuffle(offsets)
    fd = os.open(place / "file", os.O_WRONLY)
    try:
        return timed(lambda: [os.pwrite(fd, buffer, offset) for offset in offsets])
    finally:
        os.close(fd)


def make_files(count: int) -> Work:
    """Make *count* files of 4 KiB."""
    buffer = random.Random(4).randbytes(BLOCK)

    def work(place: Path) -> float:
        (place / "new").mkdir()

        def make() -> None:
            for number in range(count):
                fd = os.open(f"{place}/new/{number}", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
                os.write(fd, buffer)
                os.close(fd)

        return timed(make)

    return work


def remove_files(place: Path) -> float:
    """Remove what `make_files` has made."""
    names = os.listdir(place / "new")
    seconds = timed(lambda: [os.unlink(f"{place}/new/{name}") for name in names])
    (place / "new").rmdir()
    return seconds


def compile_tree(place: Path) -> float:
    """Compile all Python of ``tree``."""
    command = (sys.executable, "-m", "compileall", "-q", "tree")
    return timed(lambda: run(*command, cwd=place))


def make_sources(place: Path, listed: int, small: int, sources: int) -> None:
    """Put below *place* what the work is about.

    ``many``, *listed* files; ``small``, *small* files of 4 KiB; ``repository``, the latter half of
    *sources* files under git; ``tree.tar``, all *sources* files of Python.
    """
    (place / "many").mkdir()
    for number in range(listed):
        (place / "many" / f"file-{number:05}").touch()
    (place / "small").mkdir()
    content = random.Random(5).randbytes(BLOCK // 2) * 2
    for number in range(small):
        (place / "small" / f"file-{number:05}").write_bytes(content)
    tree = place / "tree"
    library = sorted(Path(compileall.__file__).parent.rglob("*.py"))
    # Tests of the library's are not all Python of today.
    usable = [path for path in library if not {"test", "tests"} & set(path.parts)]
    for number in range(sources):
        copy = tree / f"part{number % 40:02}" / f"module{number:04}.py"
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(usable[number % len(usable)], copy)
    run("tar", "cf", "tree.tar", "tree", cwd=place)
    os.rename(tree, place / "repository")
    run("git", "init", "-q", cwd=place / "repository")
    run("git", "add", "-A", cwd=place / "repository")
    run(*COMMIT, cwd=place / "repository")


def remember(place: Path) -> None:
    """Have the kernel keep what is below *place*: it may have forgotten it since it was written."""
    for directory, _, names in os.walk(place):
        for name in names:
            with open(os.path.join(directory, name), "rb") as file:
                while file.read(1 << 20):
                    pass


COMMIT = (
    *("git", "-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "gc.auto=0"),
    *("commit", "-q", "-m", "all"),
)


def in_tree(*command: str) -> Work:
    """The work of a program that is started in ``tree``."""
    work = program(*command)
    return lambda place: work(place / "tree")
