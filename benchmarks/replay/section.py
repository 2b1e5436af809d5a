"""The replays that belong to the figures of the README: made-up traces and a recorded one."""

import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.replay import policies, workload
from benchmarks.replay.figures import compression_rows, measure, policy_rows
from benchmarks.replay.generators import GENERATORS
from benchmarks.replay.trace import Trace, write_trace
from benchmarks.report import Report
from tmemfs.tmem import MIN_BUDGET

SHARES = (10, 4, 2)
"""Where the trace says nothing of a size: one in so many of the bytes that it asks for."""


@dataclass(frozen=True)
class Size:
    """How much to do."""

    budget: int
    """of the made-up traces, in bytes; they are made for it"""
    requests: int
    mib: int
    """of files to record a workload on"""


FULL = Size(budget=64 << 20, requests=1_000_000, mib=64)
QUICK = Size(budget=16 << 20, requests=100_000, mib=8)


def made_up(size: Size) -> Iterator[Trace]:
    """The traces of the generators."""
    for generator in GENERATORS:
        yield generator(size.budget // Trace.page_size, size.requests)


def recorded(report: Report, place: Path, size: Size) -> Iterator[Trace]:
    """The recorded one, if that can be made here."""
    if reason := workload.lacking():
        report.note(f"replay: no workload was recorded, {reason}")
        return
    try:
        yield workload.record(place, size.mib)
    except (OSError, subprocess.CalledProcessError) as error:
        report.note(f"replay: no workload was recorded: {error}")


def budgets(trace: Trace) -> list[int]:
    """The budgets for a trace that was not made for one."""
    asked = trace.distinct * trace.page_size
    return sorted({max(asked // share, MIN_BUDGET) for share in SHARES})


def replay_all(
    report: Report, place: Path, size: Size, corpus: bytes, keep: Path | None = None
) -> None:
    """Make the traces, keep them in the directory *keep*, and show what they show.

    *place* is an empty directory on a disk.
    """
    if reason := policies.lacking():
        report.note(f"replay: not measured, {reason}")
        return
    pairs: list[tuple[Trace, int]] = [(trace, size.budget) for trace in made_up(size)]
    pairs += [(t, budget) for t in recorded(report, place, size) for budget in budgets(t)]
    if keep is not None:
        for name, trace in {trace.name: trace for trace, _ in pairs}.items():
            write_trace(trace, keep / f"{name.replace(' ', '-')}.trace")
    show(report, pairs, corpus)


def show(report: Report, pairs: Sequence[tuple[Trace, int]], corpus: bytes) -> None:
    """The tables of each trace at its budget, and how the traces were made."""
    figures = [measure(trace, budget, corpus) for trace, budget in pairs]
    found = [figure.as_dict() for figure in figures]
    title = (
        "replay, policy: hits in percent, pages that do not compress; peers of as many pages as\n"
        "the pool held: the mean since it was full, tables and part-filled segments taken out"
    )
    report.show_rows("replay", title, policy_rows(figures), found)
    title = (
        "replay, compression: hits in percent, pages of libraries and sources; beside LRU of as\n"
        "many pages as the budget has bytes for, uncompressed and without any tables"
    )
    report.show_rows("replay", title, compression_rows(figures), [])
    abouts = {f.trace: f"{f.trace}: {f.about}" for f in figures if f.about}
    if abouts:
        report.note("\n".join(abouts.values()))
