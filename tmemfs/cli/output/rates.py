"""What happened between two looks at the figures of a mount, as figures of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tmemfs.cli.figures import Figures
from tmemfs.glossary import FIGURES

PER_SECOND = "/s"
RECENT_HITS = "recent_hits"


def with_rates(before: Figures | None, now: Figures) -> Figures:
    """`now`, and for each counter what it counted since `before`, a second: `gets` has `gets/s`.

    Pools also have `recent_hits`, the share (0 to 1) of the gets since then that found their page.
    Where there is nothing to compare with, or another daemon has come, nothing is added.
    """
    seconds = _elapsed(before, now)
    if before is None or not seconds:
        return now
    found = dict(now)
    for section in ("reclaim", "cache", "failsafe"):
        if section in now:
            found[section] = _part(section, before.get(section, {}), now[section], seconds)
    for section, name in (("pool", "pools"), ("swap", "swaps")):
        older = {part["name"]: part for part in before.get(name, [])}
        found[name] = [
            _part(section, older.get(part["name"], {}), part, seconds) for part in now.get(name, [])
        ]
    for pool in found["pools"]:
        gets = pool.get(f"gets{PER_SECOND}")
        if gets:
            pool[RECENT_HITS] = pool[f"found_gets{PER_SECOND}"] / gets
    return found


def _elapsed(before: Figures | None, now: Figures) -> float:
    """Seconds between the two by the daemon's own clock; 0 where they are not of one daemon."""
    if before is None or before.get("pid") != now.get("pid"):
        return 0.0
    seconds: float = now["uptime_seconds"] - before["uptime_seconds"]
    return max(seconds, 0.0)


def _part(
    section: str, before: Mapping[str, Any], now: Mapping[str, Any], seconds: float
) -> dict[str, Any]:
    rates = {
        f"{key}{PER_SECOND}": (value - before[key]) / seconds
        for key, value in now.items()
        if key in before and (section, key) in FIGURES and FIGURES[section, key].counter
    }
    return {**now, **rates}
