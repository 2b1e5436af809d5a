"""The figures of the status as Prometheus text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

# What goes up and down; every other number only counts up.
_BYTES = frozenset(
    {
        "compr_data_size",
        "mem_limit",
        "mem_used_max",
        "mem_used_total",
        "metadata_bytes",
        "orig_data_size",
        "page_size",
        "rss_bytes",
        "segment_size",
        "size",
    }
)
_GAUGES = frozenset({"huge_pages", "objects", "overflow_pages", "pages", "same_pages"})


def render(status: Mapping[str, Any]) -> str:
    """Return *status* (see `tmemfs.fuse.control.Control.status`) in the text format 0.0.4."""
    series: dict[str, tuple[str, list[str]]] = {}

    def add(prefix: str, figures: Mapping[str, Any], labels: str = "") -> None:
        for name, value in figures.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                metric, kind = _name(prefix, name)
                series.setdefault(metric, (kind, []))[1].append(f"{metric}{labels} {value}")

    add("tmemfs", status["memory"])
    add("tmemfs_reclaim", status["reclaim"])
    add("tmemfs_failsafe", {"count": status["failsafe"]["count"]})
    for pool in status["pools"]:
        add("tmemfs_pool", pool, f'{{pool="{pool["name"]}",kind="{pool["kind"]}"}}')
    for swap in status["swaps"]:
        # What is outside is a figure of the pool, and there already.
        figures = {name: value for name, value in swap.items() if name != "overflow_pages"}
        add("tmemfs_swap", figures, f'{{swap="{swap["name"]}"}}')
    return "\n".join(_lines(series)) + "\n"


def _lines(series: Mapping[str, tuple[str, list[str]]]) -> Iterator[str]:
    for metric, (kind, samples) in series.items():
        yield f"# TYPE {metric} {kind}"
        yield from samples


def _name(prefix: str, name: str) -> tuple[str, str]:
    if name in _BYTES:
        base = name if name.endswith("_bytes") else f"{name}_bytes"
        return f"{prefix}_{base}", "gauge"
    if name in _GAUGES:
        return f"{prefix}_{name}", "gauge"
    return f"{prefix}_{name}_total", "counter"
