"""The figures of the status as Prometheus text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tmemfs.glossary import FIGURES, Figure, Unit

Labels = Mapping[str, str]
# Names that their part of the status would say twice, or that say too little without it.
_NAMES = {("failsafe", "count"): "tmemfs_failsafe_requests"}
_PREFIXES = {"memory": "tmemfs", "mount": "tmemfs"}


def render(status: Mapping[str, Any]) -> str:
    """Return *status* (see `tmemfs.fuse.control.Control.status`) in the text format 0.0.4."""
    about = {name: str(status[name]) for name in ("version", "source", "mountpoint")}
    lines = _metric("tmemfs_mount_info", "gauge", "what is mounted, and where", [(about, 1)])
    samples: dict[tuple[str, str], list[tuple[Labels, int | float]]] = {}
    for section, labels, figures in _parts(status):
        for name, value in figures.items():
            if (section, name) in FIGURES:
                samples.setdefault((section, name), []).append((labels, value))
    for (section, name), values in samples.items():
        figure = FIGURES[section, name]
        kind = "counter" if figure.counter else "gauge"
        lines += _metric(metric_name(section, name, figure), kind, figure.meaning, values)
    return "\n".join(lines) + "\n"


def metric_name(section: str, name: str, figure: Figure) -> str:
    """What a figure is called: its part and name, then its unit, then ``total`` for a counter."""
    full = _NAMES.get((section, name), f"{_PREFIXES.get(section, f'tmemfs_{section}')}_{name}")
    endings = [figure.unit.value] if figure.unit is not Unit.COUNT else []
    for ending in endings + ["total"] * figure.counter:
        if not full.endswith(f"_{ending}"):
            full += f"_{ending}"
    return full


def _parts(status: Mapping[str, Any]) -> Iterator[tuple[str, Labels, Mapping[str, Any]]]:
    """Yield the parts of the status that hold figures, each with the labels of its samples."""
    yield "mount", {}, status
    for section in ("memory", "reclaim", "cache", "lane", "failsafe"):
        yield section, {}, status.get(section) or {}
    for pool in status["pools"]:
        yield "pool", {"pool": pool["name"], "kind": pool["kind"]}, pool
    for swap in status["swaps"]:
        yield "swap", {"swap": swap["name"]}, swap


def _metric(
    name: str, kind: str, meaning: str, samples: list[tuple[Labels, int | float]]
) -> list[str]:
    head = [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]
    return head + [f"{name}{_labelled(labels)} {value}" for labels, value in samples]


def _labelled(labels: Labels) -> str:
    pairs = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{pairs}}}" if pairs else ""


def _escaped(value: str) -> str:
    # A path may hold bytes that are no UTF-8, for which Prometheus would refuse the whole text.
    text = value.encode("utf-8", "backslashreplace").decode()
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
