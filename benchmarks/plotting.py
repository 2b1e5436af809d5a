"""What the pictures have in common: colours, and bars in groups."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Colours that people tell apart who do not see all of them; ours is the one that stands out.
_OURS = "#D55E00"
_OTHERS = ("#0072B2", "#56B4E9", "#009E73", "#E69F00", "#555555", "#999999")


def lacking() -> str | None:
    """Why nothing can be drawn here; None where it can."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return "matplotlib is missing (pip install '.[benchmark]', or scripts/setup benchmark)"
    return None


def new(columns: int, **options: Any) -> tuple[Any, Any]:
    """A picture with *columns* axes side by side; *options* are those of `pyplot.subplots`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot.subplots(1, columns, layout="constrained", **options)


def save(figure: Any, file: Path, title: str) -> None:
    """Write a picture into *file*, whose suffix says as what."""
    from matplotlib import pyplot

    figure.suptitle(title)
    figure.savefig(file, dpi=120)
    pyplot.close(figure)


def colours(ours: str, names: Sequence[str]) -> dict[str, str]:
    """A colour for each of *names*, of which *ours* is one."""
    others = [name for name in names if name != ours]
    return {ours: _OURS, **dict(zip(others, _OTHERS, strict=False))}


def places(number: int, count: int, groups: int) -> list[float]:
    """Where bar *number* of *count* is in each of *groups* groups."""
    return [group + (number + 0.5) * height(count) - 0.4 for group in range(groups)]


def height(count: int) -> float:
    """How much of a group each of its *count* bars has."""
    return 0.8 / count


def bars(
    axes: Any,
    values: Mapping[str, Sequence[float]],
    colour: Mapping[str, str],
    spreads: Mapping[str, Sequence[Sequence[float]]] | None = None,
) -> None:
    """Bars with their numbers, *values* by name, one of each name in each group.

    *spreads* tells how far each may be down from there, and up.
    """
    for number, (name, lengths) in enumerate(values.items()):
        drawn = axes.barh(
            places(number, len(values), len(lengths)),
            lengths,
            height(len(values)) * 0.9,
            color=colour[name],
            label=name,
            xerr=spreads and spreads[name],
            error_kw={"elinewidth": 1},
        )
        axes.bar_label(drawn, fmt="%.3g", padding=2, fontsize=7)


def groups(axes: Any, names: Sequence[str], what: str, least: float) -> None:
    """Name the groups and the logarithmic axis, which begins at *least*."""
    axes.set_xscale("log")
    axes.set_xlim(least, 2 * axes.get_xlim()[1])  # with room for the numbers
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel(f"{what} (logarithmic)")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    for between in range(1, len(names)):
        axes.axhline(between - 0.5, color="#dddddd", linewidth=0.8)
