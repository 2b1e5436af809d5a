"""What the page size of a cache volume costs and saves: the measurement behind the default.

Large pages compress better and need fewer table rows; a small read of one costs more, and a
random miss brings in more than was asked for.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks import servers
from benchmarks.corpus import SOURCES, source_files
from benchmarks.fio import Job, seconds_a_read
from benchmarks.kernel import drop_caches
from benchmarks.mount import MIB, only_hits
from benchmarks.rounds import Figure, Rounds

FILES = 1000


class PageSizes:
    """The same work at each of *sizes*, as ratios to *default*, which is one of them.

    `memory` tells what was in tmem after each kind of cold work, by page size.
    """

    def __init__(self, place: Path, data: bytes, sizes: Sequence[int], default: int) -> None:
        """*place* is an empty directory."""
        self.memory: list[dict[str, Any]] = []
        self._place = place
        self._sizes = sizes
        self._default = default
        self._budget = 2 * len(data) + 256 * MIB
        self._source = place / "source"
        self._source.mkdir()
        (self._source / "data").write_bytes(data)

    def warm(self, job: Job, rounds: int, runtime: float) -> list[Figure]:
        """Read the file for *runtime* seconds, all hits; every page size mounted at once."""
        with ExitStack() as stack:
            mounts = {
                size: stack.enter_context(self._mount(self._source, size)) for size in self._sizes
            }
            for mount in mounts.values():
                (mount / "data").read_bytes()

            def measure(size: int) -> float:
                with only_hits(mounts[size]):
                    return seconds_a_read(job, mounts[size] / "data", runtime=runtime)

            return self._compare(f"warm {job.name}", "read", rounds, measure, warm_up=True)

    def cold(self, job: Job, rounds: int, reads: int = 0) -> list[Figure]:
        """Read the file *reads* times or once through, from a new mount and empty caches."""

        def work(mount: Path) -> float:
            return seconds_a_read(job, mount / "data", reads=reads)

        what = f"cold {job.name}" + (f" x {reads}" if reads else "")
        return self._cold(what, "read", self._source, rounds, work)

    def cold_tree(self, rounds: int) -> list[Figure]:
        """Read Python sources of the standard library: many small files."""
        return self._cold("cold Python sources", "file", SOURCES, rounds, _read_sources)

    def _mount(self, source: Path, size: int) -> AbstractContextManager[Path]:
        mountpoint = self._place / f"mount-{size}"
        return servers.tmemfs(source, mountpoint, budget=self._budget, page_size=size)

    def _cold(
        self, what: str, unit: str, source: Path, rounds: int, work: Callable[[Path], float]
    ) -> list[Figure]:
        memory: dict[int, dict[str, int]] = {}

        def measure(size: int) -> float:
            with self._mount(source, size) as mount:
                _drop_caches()
                seconds = work(mount)
                memory[size] = servers.status(mount)["memory"]
            return seconds

        figures = self._compare(what, unit, rounds, measure, warm_up=False)
        self.memory += [{"after": what, "page_size": size, **memory[size]} for size in self._sizes]
        return figures

    def _compare(
        self,
        what: str,
        unit: str,
        rounds: int,
        measure: Callable[[int], float],
        *,
        warm_up: bool,
    ) -> list[Figure]:
        def name(size: int) -> str:
            return f"{what}, {size >> 10} KiB pages"

        def variant(size: int) -> Callable[[], float]:
            return lambda: measure(size)

        variants = {name(size): variant(size) for size in self._sizes}
        done = Rounds(variants, rounds, warm_up=warm_up)
        return [
            done.figure(name(size), name(self._default), unit)
            for size in self._sizes
            if size != self._default
        ]


def _read_sources(mount: Path) -> float:
    files = [mount / path.relative_to(SOURCES) for path in source_files(FILES)]
    # Finding them has brought their names into the kernel's cache, not those of the mount.
    _drop_caches()
    start = perf_counter()
    for file in files:
        file.read_bytes()
    return (perf_counter() - start) / len(files)


def _drop_caches() -> None:
    # Not permitted to everybody; then "cold" is cold in tmem only, for all page sizes alike.
    with suppress(OSError):
        drop_caches()
