"""The rows and what became of them, as a table in Markdown."""

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.guest.image import image
from benchmarks.guest.machine import Outcome, run
from benchmarks.guest.rows import Row

HEADINGS = (
    "row",
    "memory, load (MiB)",
    "volume",
    "settings",
    "went on",
    "pages out, in",
    "daemon's page faults",
    "seconds",
)


def measure(rows: Sequence[Row], rounds: int, consoles: Path | None = None) -> Iterator[str]:
    """Run *rounds* guests of each row, one at a time; the table, line by line as it is known."""
    booted = image()
    if consoles is not None:
        consoles.mkdir(parents=True, exist_ok=True)
    yield from head()
    for row in rows:
        outcomes = []
        for number in range(rounds):
            outcomes.append(run(row, booted))
            if consoles is not None:
                (consoles / f"{row.name}.{number}").write_text(outcomes[-1].console)
        yield line(row, outcomes)


def head() -> Iterator[str]:
    """The two lines that begin the table."""
    yield _cells(HEADINGS)
    yield "|---" * len(HEADINGS) + "|"


def line(row: Row, outcomes: Sequence[Outcome]) -> str:
    """The line of *row*: medians of its guests that went on, of page faults the most."""
    return _cells((row.name, *_machine(row), went_on(outcomes), *_figures(outcomes)))


def went_on(outcomes: Sequence[Outcome]) -> str:
    """How many did, of how many, and how they ended."""
    good = sum(outcome.went_on for outcome in outcomes)
    ends = Counter(outcome.end for outcome in outcomes)
    how = ", ".join(f"{count} {end}" for end, count in ends.items())
    return f"{good} of {len(outcomes)}: {how}"


def _machine(row: Row) -> tuple[str, str, str]:
    where = f" in a cgroup of {row.cgroup}" if row.cgroup else ""
    what = f", {row.random}% random" if row.random != Row.random else ""
    volume = f"{row.size}M, budget {row.budget}M, overflow {row.overflow}"
    settings = [*row.sysctls, " ".join(row.options)]
    return (
        f"{row.memory}, {row.load}{where}{what}",
        volume,
        ", ".join(filter(None, settings)) or "default",
    )


def _figures(outcomes: Sequence[Outcome]) -> tuple[str, str, str]:
    good = [outcome for outcome in outcomes if outcome.went_on]
    if not good:
        return "", "", ""
    pages = (f"{_median([one.gained(what) for one in good]):,}" for what in ("out", "in"))
    faults = max(one.gained("minflt") + one.gained("majflt") for one in good)
    return ", ".join(pages), str(faults), str(_median([one.after["seconds"] for one in good]))


def _median(values: Sequence[int]) -> int:
    return round(statistics.median(values))


def _cells(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
