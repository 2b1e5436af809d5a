"""The figures as a picture: time a page, single faults, and what a byte of memory holds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import plotting
from benchmarks.swap.capacity import Capacity
from benchmarks.swap.peers import PEERS, TMEMFS
from benchmarks.swap.program import STEPS


def draw(file: Path, title: str, found: list[dict[str, Any]], capacity: Sequence[Capacity]) -> None:
    """Draw `SwapBenchmark.faults` and its capacity into *file*, whose suffix says as what."""
    colours = plotting.colours(TMEMFS, list(PEERS))
    names = list(dict.fromkeys(row["device"] for row in found))
    figure, (times, faults, held) = plotting.new(3, figsize=(15, 6), width_ratios=(5, 5, 3))

    def microseconds(name: str, key: str) -> list[float]:
        rows = {row["step"]: row for row in found if row["device"] == name}
        return [rows[step][key] * 1e6 for step in STEPS]

    plotting.bars(times, {name: microseconds(name, "seconds_a_page") for name in names}, colours)
    for number, name in enumerate(names):
        places = plotting.places(number, len(names), len(STEPS))
        colour = colours[name]
        middle, slow = microseconds(name, "p50"), microseconds(name, "p99")
        faults.hlines(places, middle, slow, color=colour, linewidth=2)
        faults.plot(middle, places, "o", color=colour, markersize=6)
        faults.plot(slow, places, "|", color=colour, markersize=9, markeredgewidth=2)
    for axes, what in ((times, "microseconds a page"), (faults, "microseconds a fault")):
        plotting.groups(axes, STEPS, what, least=1)
    times.set_title("time a page,\nthe program's own work included")
    faults.set_title("one page fault:\nmedian (dot) to 99th percentile (bar)")
    bars = held.bar(
        [entry.name.replace(" ", "\n") for entry in capacity],
        [entry.ratio for entry in capacity],
        color=[colours[entry.name] for entry in capacity],
    )
    held.bar_label(bars, fmt="%.2f", padding=2)
    held.set_title("bytes held\nin a byte of memory")
    held.spines[["top", "right"]].set_visible(False)
    figure.legend(*times.get_legend_handles_labels(), loc="outside lower center", ncols=len(names))
    plotting.save(figure, file, title)
