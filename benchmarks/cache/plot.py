"""The figures as a picture: what each work took through each layer, cold and warm."""

from pathlib import Path
from typing import Any

from benchmarks import plotting
from benchmarks.cache.figures import PASSES
from benchmarks.cache.layers import LAYERS, TMEMFS


def draw(file: Path, title: str, found: list[dict[str, Any]]) -> None:
    """Draw `CacheBenchmark.times` into *file*, whose suffix says as what."""
    colours = plotting.colours(TMEMFS, list(LAYERS))
    units = {row["work"]: row["unit"] for row in found}
    figure, both = plotting.new(len(PASSES), figsize=(14, 6), sharex=True)
    for axes, when in zip(both, PASSES, strict=True):
        values: dict[str, list[float]] = {}
        spreads: dict[str, tuple[list[float], list[float]]] = {}
        for row in found:
            if row["pass"] != when:
                continue
            middle, least, most = (
                row[key] * 1e3 for key in ("seconds", "seconds_min", "seconds_max")
            )
            values.setdefault(row["layer"], []).append(middle)
            down, up = spreads.setdefault(row["layer"], ([], []))
            down.append(middle - least)
            up.append(most - middle)
        plotting.bars(axes, values, colours, spreads)
        names = [f"{work},\na {unit}" for work, unit in units.items()]
        plotting.groups(axes, names, "milliseconds", least=0.05)
        axes.set_title(when)
    figure.legend(*both[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    plotting.save(figure, file, f"{title}:\nmedian, least and most of the rounds")
