"""The figures as a picture: what each work took through each layer, cold and warm."""

from pathlib import Path
from typing import Any

from benchmarks import plotting
from benchmarks.cache.figures import PASSES
from benchmarks.cache.layers import LAYERS, TMEMFS


def draw(file: Path, title: str, found: list[dict[str, Any]]) -> None:
    """Draw `CacheBenchmark.times` into *file*, whose suffix says as what."""
    colours = plotting.colours(TMEMFS, list(LAYERS))
    works = list(dict.fromkeys(row["work"] for row in found))
    layers = list(dict.fromkeys(row["layer"] for row in found))
    figure, both = plotting.new(len(PASSES), figsize=(14, 6), sharex=True)
    for axes, when in zip(both, PASSES, strict=True):
        rows = {(row["layer"], row["work"]): row for row in found if row["pass"] == when}
        values = {layer: [rows[layer, work]["seconds"] * 1e3 for work in works] for layer in layers}
        plotting.bars(axes, values, colours, "%.3g")
        for number, layer in enumerate(layers):
            places = plotting.places(number, len(layers), len(works))
            low = [rows[layer, work]["seconds_min"] * 1e3 for work in works]
            high = [rows[layer, work]["seconds_max"] * 1e3 for work in works]
            axes.hlines(places, low, high, color="black", linewidth=1)
        units = {row["work"]: row["unit"] for row in found}
        names = [f"{work},\na {units[work]}" for work in works]
        plotting.groups(axes, names, "milliseconds", least=0.05)
        axes.set_title(when)
    figure.legend(*both[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    plotting.save(figure, file, f"{title}:\nmedian, least and most of the rounds")
