"""What is done with a directory: a large file in order and at random, and a tree of small files.

Each work reads all that it reads once, and checks it.
"""

import io
import os
import random
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from benchmarks.corpus import SOURCES, source_files

SEQUENTIAL, RANDOM = "1 MiB sequential", "4 KiB random"
TAR, GREP, GIT = "tar", "grep -r", "git status"
SMALL_FILES = (TAR, GREP, GIT)

_MIB = 1 << 20
_PAGE = 4 << 10
# Long ago, so that git need not wonder whether a file has changed in the second it was looked at.
_LONG_AGO = 1_000_000_000
_GIT = ("git", "-c", "safe.directory=*", "-c", "user.name=n", "-c", "user.email=e")
_GIT_ENVIRONMENT = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_OPTIONAL_LOCKS": "0",  # it writes no index while it looks
}


@dataclass(frozen=True)
class Work:
    """*run* does it in a directory that shows the source, and returns the seconds that it took.

    It raises OSError where it read something else than is there. *count* is how many *unit*s of
    work it does, *program* what does it, if that is not this process.
    """

    name: str
    unit: str
    count: int
    run: Callable[[Path], float]
    program: str | None = None

    def load(self) -> None:
        """Bring the program back into the kernel's cache: where it is, is not slow."""
        if self.program is not None and (found := shutil.which(self.program)):
            Path(found).read_bytes()
            _output([found, "--version"], Path("/"))


def make_source(source: Path, data: bytes, files: int) -> None:
    """Fill the empty directory *source*: a large file, and *files* sources with their history."""
    (source / "data").write_bytes(data)
    tree = source / "tree"
    for file in source_files(files):
        copy = tree / file.relative_to(SOURCES)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
        os.utime(copy, (_LONG_AGO, _LONG_AGO))
    _git(source, "init", "--quiet")
    # Inode numbers, change times and fractions of seconds differ with the way to look at the
    # files. By default, git would read all of those that it knows from somewhere else.
    _git(source, "config", "core.checkStat", "minimal")
    _git(source, "config", "core.trustctime", "false")
    _git(source, "add", "tree")
    _git(source, "commit", "--quiet", "--message", "all")
    _git(source, "gc", "--quiet")
    # Something to be found.
    changed = next(tree.rglob("*.py"))
    changed.write_bytes(changed.read_bytes() + b"# changed\n")
    (tree / "untracked").touch()


def works(source: Path, reads: int) -> list[Work]:
    """What can be done with a directory that shows *source*; *reads* is for the random reads."""
    data = (source / "data").read_bytes()
    in_order = range(0, len(data), _MIB)
    at_random = random.Random(0).sample(range(0, len(data), _PAGE), reads)
    names = [path for path in (source / "tree").rglob("*") if path.is_file()]
    contents = {str(path.relative_to(source)): path.read_bytes() for path in names}
    found = _grep(source)
    status = _git(source, "status", "--porcelain")

    def tar(mount: Path) -> float:
        start = perf_counter()
        # Through a pipe, for tar does not read what it is to write to /dev/null.
        archive = _output(["tar", "cf", "-", "tree"], mount)
        seconds = perf_counter() - start
        if _members(archive) != contents:
            raise OSError(f"{mount}: tar has packed something else")
        return seconds

    def grep(mount: Path) -> float:
        start = perf_counter()
        lines = _grep(mount)
        seconds = perf_counter() - start
        if sorted(lines.splitlines()) != sorted(found.splitlines()):
            raise OSError(f"{mount}: grep has found something else")
        return seconds

    def git(mount: Path) -> float:
        start = perf_counter()
        said = _git(mount, "status", "--porcelain")
        seconds = perf_counter() - start
        if said != status:
            raise OSError(f"{mount}: git has seen something else: {said!r}")
        return seconds

    count = len(names)
    return [
        Work(SEQUENTIAL, "read", len(in_order), lambda mount: _read(mount, data, in_order, _MIB)),
        Work(RANDOM, "read", reads, lambda mount: _read(mount, data, at_random, _PAGE)),
        Work(TAR, "file", count, tar, "tar"),
        Work(GREP, "file", count, grep, "grep"),
        Work(GIT, "file", count, git, "git"),
    ]


def _read(mount: Path, data: bytes, offsets: Sequence[int], size: int) -> float:
    start = perf_counter()
    with open(mount / "data", "rb", buffering=0) as file:
        seconds = perf_counter() - start
        for offset in offsets:
            start = perf_counter()
            piece = os.pread(file.fileno(), size, offset)
            seconds += perf_counter() - start
            if piece != data[offset : offset + size]:
                raise OSError(f"{mount}: wrong bytes at {offset}")
    return seconds


def _members(archive: bytes) -> dict[str, bytes]:
    found = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        for member in members:
            if (content := members.extractfile(member)) is not None:
                found[member.name] = content.read()
    return found


def _grep(directory: Path) -> bytes:
    return _output(["grep", "--recursive", "--line-number", "import", "tree"], directory)


def _git(directory: Path, *command: str) -> bytes:
    return _output([*_GIT, *command], directory, _GIT_ENVIRONMENT)


def _output(
    command: list[str], directory: Path, environment: dict[str, str] | None = None
) -> bytes:
    done = subprocess.run(
        command,
        cwd=directory,
        env=os.environ | (environment or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise OSError(f"{' '.join(command)} failed in {directory}: {done.stderr.decode().strip()}")
    return done.stdout
