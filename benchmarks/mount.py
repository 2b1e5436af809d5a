"""Reads through the mount, all of them hits, beside filesystems that do nothing.

All servers are mounted at once and idle but one: what differs within a round is the server.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from benchmarks import servers
from benchmarks.fio import (
    BUFFERED_1M,
    BUFFERED_4K,
    RANDOM_4K,
    RANDOM_4K_JOBS,
    RANDOM_4K_MEDIAN,
    SEQUENTIAL_1M,
    SEQUENTIAL_1M_JOBS,
    Job,
    seconds_a_read,
)
from benchmarks.kernel import read_ahead
from benchmarks.rounds import Figure, Rounds

TMEMFS, OFF, PYTHON, C = "tmemfs", "tmemfs, native=off", "null pyfuse3", "null C"
# Beside the do-nothing filesystem in C.
TARGETS = {
    RANDOM_4K_MEDIAN: 2.2,
    RANDOM_4K: 0.9,
    RANDOM_4K_JOBS: 1.25,
    SEQUENTIAL_1M: 2.5,
    SEQUENTIAL_1M_JOBS: 2.0,
}
JOBS = (*TARGETS, BUFFERED_1M, BUFFERED_4K)
MIB = 1 << 20


def mount_figures(
    place: Path, data: bytes, page_size: int, rounds: int, runtime: float
) -> tuple[list[Figure], list[str]]:
    """Figures for each way of reading *data*, and notes on what could not be measured.

    *place* is an empty directory; each read lasts *runtime* seconds.
    """
    source = place / "source"
    source.mkdir()
    (source / "data").write_bytes(data)
    missing = servers.compile_null_c(place)
    notes = [f"no {C} server: {missing}"] if missing else []
    figures = []
    with ExitStack() as stack:
        budget = 2 * len(data) + 64 * MIB
        mount = stack.enter_context(
            servers.tmemfs(source, place / "tmemfs", budget=budget, page_size=page_size)
        )
        off = stack.enter_context(
            servers.tmemfs(
                source,
                place / "off",
                budget=budget,
                page_size=page_size,
                options=["-onative=off"],
            )
        )
        files = {TMEMFS: mount / "data", OFF: off / "data"}
        files[PYTHON] = stack.enter_context(servers.null_pyfuse3(source / "data", place / "py"))
        if not missing:
            files[C] = stack.enter_context(servers.null_c(source / "data", place / "c"))
        if any(file.read_bytes() != data for file in files.values()):
            raise AssertionError("a server does not show the file as it is")
        _equal_read_ahead(mount, files.values(), notes)
        for job in JOBS:
            with only_hits(mount):
                figures += _of_job(job, files, rounds, runtime)
    return figures, notes


def _of_job(job: Job, files: dict[str, Path], rounds: int, runtime: float) -> list[Figure]:
    if not job.direct and not job.cached:
        # What comes through the kernel's cache can come through the mount but once: read it all.
        runtime = 0

    def reads(server: str) -> str:
        return f"{server}, {job.name}"

    variants = {
        reads(server): partial(seconds_a_read, job, file, runtime=runtime)
        for server, file in files.items()
    }
    done = Rounds(variants, rounds)
    figures = [done.figure(reads(TMEMFS), reads(beside), "read") for beside in (OFF, PYTHON)]
    if C in files:
        figures.append(done.figure(reads(TMEMFS), reads(C), "read", TARGETS.get(job)))
        figures.append(done.figure(reads(OFF), reads(C), "read"))
    return figures


def _equal_read_ahead(mount: Path, files: Iterable[Path], notes: list[str]) -> None:
    """Let the kernel read ahead on every server as far as it does on *mount*."""
    ahead = read_ahead(mount).read_text()
    try:
        for file in files:
            if read_ahead(file).read_text() != ahead:
                read_ahead(file).write_text(ahead)
    except PermissionError:
        notes.append("the kernel reads ahead as each server has it, for only root can change that")
    else:
        notes.append(f"the kernel reads ahead {ahead.strip()} KiB on all servers")


@contextmanager
def only_hits(mount: Path) -> Iterator[None]:
    """Make sure that all that is read in this context is found in tmem."""
    before = _misses(mount)
    yield
    if missed := _misses(mount) - before:
        raise AssertionError(f"{missed} pages were no hits: this measured the backing file")


def _misses(mount: Path) -> int:
    pools = servers.status(mount)["pools"]
    return sum(pool["gets"] - pool["found_gets"] for pool in pools if pool["kind"] == "ephemeral")
