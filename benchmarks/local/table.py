"""Rounds of work on a local directory, each of them on a fresh mount of each way to it."""

import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.local import work
from benchmarks.local.servers import BARE, BINDFS, TMEMFS, WAYS
from benchmarks.local.work import Work
from benchmarks.rounds import Figure, turns
from benchmarks.servers import lacking as lacking_programs


@dataclass(frozen=True)
class Sizes:
    """How many files there are to list, to read, and in the source tree."""

    listed: int = 20_000
    small: int = 10_000
    sources: int = 1_000
    made: int = 4_000


FULL = Sizes()
QUICK = Sizes(listed=2_000, small=1_000, sources=200, made=400)


@dataclass(frozen=True)
class Task:
    """One line of a table: the most times bindfs' seconds that it may take, if that is promised."""

    name: str
    do: Work
    target: float | None = None


def names(_: Sizes) -> list[Task]:
    """What is mostly about names, in this order on each mount."""
    git = ("git", "-C", "repository")
    return [
        Task("ls -l", work.program("ls", "-l", "many"), 1.0),
        Task("find", work.program("find", "small", "-size", "+1")),
        Task("small files, cold", work.read_all, 2.5),
        Task("small files, warm", work.read_all, 1.8),
        Task("tar", work.program("tar", "cf", "/dev/null", "-C", "small", ".")),
        Task("git status", work.program(*git, "status")),
        Task("rm -r", work.program("rm", "-r", "many")),
        Task("untar", work.program("tar", "xf", "tree.tar"), 1.4),
        Task("git add", _git_add, 1.4),
        Task("git commit", work.in_tree(*work.COMMIT), 1.4),
        Task("compileall", work.compile_tree, 1.4),
        Task("rm -r of the tree", work.program("rm", "-r", "tree"), 1.4),
    ]


def writes(sizes: Sizes) -> list[Task]:
    """What is mostly about bytes that are written."""
    return [
        Task("1 MiB writes", work.write_in_order(work.LARGE)),
        Task("4 KiB writes", work.write_in_order(work.BLOCK), 1.5),
        Task("4 KiB writes, random", work.write_anywhere, 1.5),
        Task("make small files", work.make_files(sizes.made), 1.6),
        Task("remove small files", work.remove_files, 1.6),
    ]


def _git_add(place: Path) -> float:
    work.run("git", "init", "-q", cwd=place / "tree")
    return work.in_tree("git", "add", "-A")(place)


def lacking() -> str | None:
    """Why this cannot be measured here, None where it can."""
    return lacking_programs("bindfs", "git", "tar")


class LocalBenchmark:
    """*tasks* on each way to a copy of one source, in *place*."""

    def __init__(self, place: Path, sizes: Sizes, tasks: Callable[[Sizes], Sequence[Task]]) -> None:
        self._place = place
        self._tasks = tasks(sizes)
        self._seconds: dict[tuple[str, str], list[float]] = {}
        template = place / "template"
        template.mkdir()
        work.make_sources(template, sizes.listed, sizes.small, sizes.sources)

    def measure(self, rounds: int) -> None:
        """Do all of it *rounds* times."""
        for way in turns(list(WAYS), rounds):
            source, mountpoint = self._place / "source", self._place / "mount"
            # A copy, which is in the kernel's memory then: the disk is not what is measured.
            subprocess.run(["cp", "-a", self._place / "template", source], check=True)
            subprocess.run(["sync"], check=True)
            work.remember(source)
            try:
                with WAYS[way](source, mountpoint) as reached:
                    for task in self._tasks:
                        seconds = task.do(reached)
                        self._seconds.setdefault((way, task.name), []).append(seconds)
            finally:
                shutil.rmtree(source)

    def figures(self) -> list[Figure]:
        """tmemfs beside bindfs, and bindfs beside the bare directory."""
        found = []
        for task in self._tasks:
            bare, bindfs, tmemfs = (
                tuple(self._seconds[way, task.name]) for way in (BARE, BINDFS, TMEMFS)
            )
            subject, peer = f"{TMEMFS}, {task.name}", f"{BINDFS}, {task.name}"
            found.append(Figure(subject, peer, "run", tmemfs, bindfs, task.target))
            found.append(Figure(subject, f"{BARE}, {task.name}", "run", tmemfs, bare))
        return found
