"""The figures as a picture: time a page, single faults, and what a byte of memory holds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.swap.capacity import Capacity
from benchmarks.swap.peers import PEERS, TMEMFS
from benchmarks.swap.program import STEPS

# Colours that people tell apart who do not see all of them; tmemfs is the one that stands out.
_OTHERS = ("#0072B2", "#56B4E9", "#009E73", "#E69F00", "#555555", "#999999")
_TMEMFS = "#D55E00"
_COLOURS = {
    TMEMFS: _TMEMFS,
    **dict(zip([name for name in PEERS if name != TMEMFS], _OTHERS, strict=True)),
}


def lacking() -> str | None:
    """Why nothing can be drawn here; None where it can."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return "matplotlib is missing (pip install '.[benchmark]', or scripts/setup benchmark)"
    return None


def draw(file: Path, title: str, found: list[dict[str, Any]], capacity: Sequence[Capacity]) -> None:
    """Draw `SwapBenchmark.faults` and its capacity into *file*, whose suffix says as what."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(dict.fromkeys(row["device"] for row in found))
    figure, (times, faults, held) = pyplot.subplots(
        1, 3, figsize=(15, 6), width_ratios=(5, 5, 3), layout="constrained"
    )
    height = 0.8 / len(names)
    for number, name in enumerate(names):
        rows = {row["step"]: row for row in found if row["device"] == name}
        places = [step + (number + 0.5) * height - 0.4 for step in range(len(STEPS))]
        colour = _COLOURS[name]
        seconds = [rows[step]["seconds_a_page"] * 1e6 for step in STEPS]
        drawn = times.barh(places, seconds, height * 0.9, color=colour, label=name)
        times.bar_label(drawn, fmt="%.3g", padding=2, fontsize=7)
        middle = [rows[step]["p50"] * 1e6 for step in STEPS]
        slow = [rows[step]["p99"] * 1e6 for step in STEPS]
        faults.hlines(places, middle, slow, color=colour, linewidth=2)
        faults.plot(middle, places, "o", color=colour, markersize=6)
        faults.plot(slow, places, "|", color=colour, markersize=9, markeredgewidth=2)
    for axes, what in ((times, "microseconds a page"), (faults, "microseconds a fault")):
        axes.set_xscale("log")
        axes.set_xlim(1, 2 * axes.get_xlim()[1])  # with room for the numbers
        axes.set_yticks(range(len(STEPS)), STEPS)
        axes.invert_yaxis()
        axes.set_xlabel(f"{what} (logarithmic)")
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
        for between in range(1, len(STEPS)):
            axes.axhline(between - 0.5, color="#dddddd", linewidth=0.8)
    times.set_title("time a page,\nthe program's own work included")
    faults.set_title("one page fault:\nmedian (dot) to 99th percentile (bar)")
    bars = held.bar(
        [entry.name.replace(" ", "\n") for entry in capacity],
        [entry.ratio for entry in capacity],
        color=[_COLOURS[entry.name] for entry in capacity],
    )
    held.bar_label(bars, fmt="%.2f", padding=2)
    held.set_title("bytes held\nin a byte of memory")
    held.spines[["top", "right"]].set_visible(False)
    figure.legend(*times.get_legend_handles_labels(), loc="outside lower center", ncols=len(names))
    figure.suptitle(title)
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
