"""The columns of `tmemfs status`: what each is called, what it means, where its figure comes from.

A row is one pool of one mount. Figures keep the names of `status.json`; columns have the names
that zramctl users know (DATA, COMPR, TOTAL, MEM-LIMIT), else those of the figure.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tmemfs.cli.figures import Figures
from tmemfs.errors import UsageError
from tmemfs.glossary import FIGURES, Unit
from tmemfs.units import format_size

Value = str | int | float | None


class Kind(enum.Enum):
    """How a value is written for people, and on which side it stands."""

    TEXT = "text"
    SIZE = "size"
    COUNT = "count"
    RATIO = "ratio"
    PERCENT = "percent"
    RATE = "rate"
    SECONDS = "seconds"


@dataclass(frozen=True, slots=True)
class Row:
    """One pool (empty where a mount has none), all figures of its mount, and of a swap volume.

    `volume` is what the daemon says of the volume, with what the kernel says of its device.
    """

    mountpoint: str
    mount: Figures
    pool: Figures
    volume: Figures = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Column:
    """One column: `value` takes its figure from a row, None where there is none."""

    name: str
    kind: Kind
    explanation: str
    value: Callable[[Row], Value]

    @property
    def on_the_right(self) -> bool:
        """Whether it is aligned to the right, as numbers are."""
        return self.kind is not Kind.TEXT

    def written(self, row: Row, *, in_bytes: bool) -> str:
        """The figure of `row` for people, empty where there is none."""
        value = self.value(row)
        if value is None or isinstance(value, str):
            return value or ""
        match self.kind:
            case Kind.SIZE if not in_bytes:
                return format_size(int(value))
            case Kind.RATIO:
                return f"{value:.2f}"
            case Kind.PERCENT:
                return f"{value:.1f}%"
            case Kind.RATE:
                return f"{value:.1f}" if 0 < value < 10 else f"{value:.0f}"
            case Kind.SECONDS:
                return _elapsed(int(value))
        return str(value)


def _elapsed(seconds: int) -> str:
    """As ps(1) writes it: `[DD-]HH:MM:SS`."""
    days, rest = divmod(seconds, 86400)
    clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days}-{clock}" if days else clock


def figure_of(section: str, key: str) -> Callable[[Row], Value]:
    """What finds a plain figure; a figure of the wrong type is none."""

    def value(row: Row) -> Value:
        places = {"pool": row.pool, "mount": row.mount, "volume": row.volume}
        place: Any = places[section] if section in places else row.mount.get(section)
        found = place.get(key) if isinstance(place, dict) else None
        if isinstance(found, bool):
            return "yes" if found else "no"
        return found if isinstance(found, str | int | float) else None

    return value


def _quotient(over: str, under: str, factor: int) -> Callable[[Row], Value]:
    """What divides one figure of the pool by another; nothing by zero."""

    def value(row: Row) -> Value:
        a, b = (figure_of("pool", key)(row) for key in (over, under))
        if isinstance(a, str) or isinstance(b, str) or a is None or not b:
            return None
        return round(factor * a / b, 2)

    return value


def _texts(section: str, *rows: tuple[str, ...]) -> list[Column]:
    """Columns of words: each a key, what it means, and a name where that is not the key."""
    return [
        Column(name[0] if name else _name(key), Kind.TEXT, text, figure_of(section, key))
        for key, text, *name in rows
    ]


def _numbers(part: str, *keys: str, **named: str) -> list[Column]:
    """Columns of figures of a part of the glossary: keys, and keys with names of their own."""
    section = "volume" if part == "swap" else part
    names = {key: _name(key) for key in keys} | named
    return [
        Column(
            name,
            _KINDS[FIGURES[part, key].unit],
            FIGURES[part, key].meaning,
            figure_of(section, key),
        )
        for key, name in names.items()
    ]


def _name(key: str) -> str:
    return key.upper().replace("_", "-")


_KINDS = {Unit.COUNT: Kind.COUNT, Unit.BYTES: Kind.SIZE, Unit.SECONDS: Kind.SECONDS}

_ALL = (
    Column("MOUNTPOINT", Kind.TEXT, "where it is mounted", lambda row: row.mountpoint),
    *_texts(
        "pool",
        ("name", "'cache', or the name of the swap volume", "POOL"),
        ("kind", "ephemeral: may be dropped; persistent: is kept until it is freed"),
    ),
    *_numbers("pool", orig_data_size="DATA", compr_data_size="COMPR", mem_used_total="TOTAL"),
    Column(
        "RATIO",
        Kind.RATIO,
        "compression ratio: DATA/COMPR",
        _quotient("orig_data_size", "compr_data_size", 1),
    ),
    Column(
        "HIT%",
        Kind.PERCENT,
        "share of the gets that found their page: FOUND-GETS/GETS",
        _quotient("found_gets", "gets", 100),
    ),
    *_numbers(
        "memory",
        mem_used_total="MEM-USED",
        mem_limit="MEM-LIMIT",
        mem_used_max="MEM-USED-MAX",
        metadata_bytes="MEM-METADATA",
        rss_bytes="RSS",
    ),
    *_texts("volume", ("device", "the loop device on a swap volume")),
    Column(
        "PRIO",
        Kind.COUNT,
        "of two swaps, the higher is used first",
        figure_of("volume", "priority"),
    ),
    Column(
        "USED",
        Kind.SIZE,
        "how much the kernel has swapped out to it",
        figure_of("volume", "used"),
    ),
    *_numbers("swap", "size"),
    *_texts("volume", ("overflow", "the file for what the budget does not hold")),
    *_numbers("pool", "overflow_pages"),
    *_numbers("swap", "overflow_reads", "overflow_writes", "overflow_errors"),
    *_texts(
        "mount",
        ("discard", "whether what the kernel frees on a swap volume is freed at once"),
        ("store", "what finds pages: native (in C), or python"),
        ("native_reader", "whether runs of pages are read by the extension for it"),
        ("lacking", "what the daemon is not permitted to do to be safe", "UNSAFE"),
    ),
    *_numbers("pool", "page_size", metadata_bytes="METADATA"),
    *_numbers(
        "pool",
        *("pages", "objects", "same_pages", "huge_pages"),
        *("puts", "good_puts", "no_mem_puts", "bad_puts", "dup_puts_flushed", "dup_puts_replaced"),
        *("gets", "found_gets", "flushs", "flushs_found", "flush_objs", "flush_objs_found"),
        "corrupt_pages",
    ),
    *_numbers(
        "reclaim",
        *("evicted_pgs", "evict_attempts", "moved_pgs", "pers_ate_eph", "cleaned_segments"),
        *("written_back_pages", "pool_limit_hit", "put_to_flush"),
    ),
    *_numbers(
        "cache",
        "backing_reads",
        "shared_reads",
        "readahead_reads",
        backing_read_bytes="BACKING-READ",
        backing_writes="BACKING-WRITES",
        backing_write_bytes="BACKING-WRITTEN",
        readahead_pages="READAHEAD",
        stale_objects="STALE",
        recalled_attributes="RECALLED-ATTRIBUTES",
        recalled_names="RECALLED-NAMES",
        listed_directories="LISTED",
        known_inodes="INODES",
        open_descriptors="DESCRIPTORS",
        open_files="OPEN-FILES",
        threads_waiting="THREADS-WAITING",
    ),
    *_numbers(
        "lane",
        answered="LANE-ANSWERED",
        handed_over="LANE-HANDED-OVER",
        grants="LANE-GRANTS",
        threads="LANE-THREADS",
    ),
    *_texts(
        "mount",
        ("source", "the directory that is shown"),
        ("version", "version of the daemon"),
    ),
    Column("PID", Kind.COUNT, "process id of the daemon", figure_of("mount", "pid")),
    *_numbers("mount", uptime_seconds="UPTIME"),
    *_numbers("failsafe", count="FAILSAFES"),
    *_texts("failsafe", ("last", "what the last one was", "LAST-FAILSAFE")),
)

COLUMNS = {column.name: column for column in _ALL}
DEFAULT = "MOUNTPOINT,POOL,KIND,DATA,COMPR,TOTAL,RATIO,HIT%,MEM-USED,MEM-LIMIT"
SWAP = "DEVICE,PRIO,USED"


def choose(text: str | None, *, swap: bool = False) -> list[Column]:
    """The columns of an `--output` list; `+LIST` adds to the default ones. Case does not matter.

    The default ones are some more where there is `swap`. Raises UsageError for a name that is none.
    """
    default = f"{DEFAULT},{SWAP}" if swap else DEFAULT
    if text is None:
        text = default
    elif text.startswith("+"):
        text = f"{default},{text[1:]}"
    names = [name.strip().upper() for name in text.split(",")]
    for name in names:
        if name not in COLUMNS:
            raise UsageError.unknown("column", name, COLUMNS)
    return [COLUMNS[name] for name in names]


def explain() -> str:
    """The list of all columns for `--help`."""
    width = max(map(len, COLUMNS))
    return "\n".join(
        f"  {column.name:>{width}}  {column.explanation}" for column in COLUMNS.values()
    )
