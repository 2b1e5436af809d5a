"""The columns of `tmemfs top`: of each pool what goes on in it, of each mount its memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tmemfs.cli.figures import Figures
from tmemfs.cli.output.columns import COLUMNS, Column, Kind, Row, Value, figure_of
from tmemfs.cli.output.rates import PER_SECOND, RECENT_HITS


def _rate(section: str, key: str) -> Callable[[Row], Value]:
    return figure_of(section, f"{key}{PER_SECOND}")


def _of_the_source(key: str) -> Callable[[Row], Value]:
    """A rate of the cache volume, for the row of its pool."""
    value = _rate("cache", key)
    return lambda row: value(row) if row.pool.get("kind") == "ephemeral" else None


def _recent_hits(row: Row) -> Value:
    share = row.pool.get(RECENT_HITS)
    return None if share is None else 100 * float(share)


POOL = (
    COLUMNS["POOL"],
    Column("HIT%", Kind.PERCENT, "share of the gets that found their page, of late", _recent_hits),
    Column("HIT%-ALL", Kind.PERCENT, "the same since the mount", COLUMNS["HIT%"].value),
    Column("GETS/s", Kind.RATE, "pages asked for", _rate("pool", "gets")),
    Column("PUTS/s", Kind.RATE, "pages stored", _rate("pool", "good_puts")),
    Column("READ/s", Kind.SIZE, "read from the source", _of_the_source("backing_read_bytes")),
    Column("WRITE/s", Kind.SIZE, "written to the source", _of_the_source("backing_write_bytes")),
    COLUMNS["DATA"],
    COLUMNS["TOTAL"],
    Column(
        "OVERFLOW", Kind.COUNT, "pages in the overflow file", figure_of("volume", "overflow_pages")
    ),
    Column("OVER-IN/s", Kind.RATE, "pages read from it", _rate("volume", "overflow_reads")),
    Column("OVER-OUT/s", Kind.RATE, "pages written to it", _rate("volume", "overflow_writes")),
)
"""What there is to say of a pool."""

RECLAIM = (
    Column("EVICTED/s", Kind.RATE, "ephemeral pages dropped", _rate("reclaim", "evicted_pgs")),
    Column("MOVED/s", Kind.RATE, "ephemeral pages kept, since used", _rate("reclaim", "moved_pgs")),
    Column("ATE/s", Kind.RATE, "dropped for persistent pages", _rate("reclaim", "pers_ate_eph")),
)
"""What there is to say of how a mount makes room."""


class Memory(NamedTuple):
    """What the memory of a mount is used for, in bytes."""

    ephemeral: int
    persistent: int
    tables: int
    budget: int

    @property
    def used(self) -> int:
        """All that is used."""
        return self.ephemeral + self.persistent + self.tables


def memory(figures: Figures) -> Memory:
    """The memory of a mount, by what it is used for."""
    kinds = {"ephemeral": 0, "persistent": 0}
    for pool in figures["pools"]:
        kinds[pool["kind"]] += pool["mem_used_total"]
    told = figures["memory"]
    return Memory(**kinds, tables=told["metadata_bytes"], budget=told["mem_limit"])


def _memory(index: int) -> Callable[[Row], Value]:
    return lambda row: memory(row.mount)[index]


MEMORY = (
    Column("EPH", Kind.SIZE, "memory of ephemeral pages", _memory(0)),
    Column("PERS", Kind.SIZE, "memory of persistent pages", _memory(1)),
    Column("TABLES", Kind.SIZE, "memory for finding them", _memory(2)),
    Column("BUDGET", Kind.SIZE, "what they may take together", _memory(3)),
)
"""What there is to say of the memory of a mount."""

ALL = (COLUMNS["MOUNTPOINT"], *POOL, *MEMORY, *RECLAIM)


def explain() -> str:
    """The list of the columns for `--help`."""
    width = max(len(column.name) for column in ALL)
    return "\n".join(f"  {column.name:>{width}}  {column.explanation}" for column in ALL)
