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
from tmemfs.units import format_size

Value = str | int | float | None


class Kind(enum.Enum):
    """How a value is written for people, and on which side it stands."""

    TEXT = "text"
    SIZE = "size"
    COUNT = "count"
    RATIO = "ratio"
    PERCENT = "percent"
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
            case Kind.SECONDS:
                return _elapsed(int(value))
        return str(value)


def _elapsed(seconds: int) -> str:
    """As ps(1) writes it: `[DD-]HH:MM:SS`."""
    days, rest = divmod(seconds, 86400)
    clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days}-{clock}" if days else clock


def _figure(section: str, key: str) -> Callable[[Row], Value]:
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
        a, b = (_figure("pool", key)(row) for key in (over, under))
        if isinstance(a, str) or isinstance(b, str) or a is None or not b:
            return None
        return round(factor * a / b, 2)

    return value


def _columns(section: str, kind: Kind, *rows: tuple[str, ...]) -> list[Column]:
    """Columns of plain figures: each a key, what it means, and a name where that is not the key."""
    return [
        Column(
            name[0] if name else key.upper().replace("_", "-"), kind, text, _figure(section, key)
        )
        for key, text, *name in rows
    ]


_ALL = (
    Column("MOUNTPOINT", Kind.TEXT, "where it is mounted", lambda row: row.mountpoint),
    *_columns(
        "pool",
        Kind.TEXT,
        ("name", "'cache', or the name of the swap volume", "POOL"),
        ("kind", "ephemeral: may be dropped; persistent: is kept until it is freed"),
    ),
    *_columns(
        "pool",
        Kind.SIZE,
        ("orig_data_size", "size of the pool's pages, uncompressed", "DATA"),
        ("compr_data_size", "size of the pool's pages, compressed", "COMPR"),
        ("mem_used_total", "memory the pool takes, with what is not yet freed", "TOTAL"),
    ),
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
    *_columns(
        "memory",
        Kind.SIZE,
        ("mem_used_total", "memory that all pools of the mount take", "MEM-USED"),
        ("mem_limit", "the budget of the mount"),
        ("mem_used_max", "the most that MEM-USED has been"),
        ("metadata_bytes", "memory for finding the pages of all pools", "MEM-METADATA"),
        ("rss_bytes", "resident memory of the daemon", "RSS"),
    ),
    *_columns("volume", Kind.TEXT, ("device", "the loop device on a swap volume")),
    *_columns("volume", Kind.COUNT, ("priority", "of two swaps, the higher is used first", "PRIO")),
    *_columns(
        "volume",
        Kind.SIZE,
        ("used", "how much the kernel has swapped out to it"),
        ("size", "how much it can swap out to it"),
    ),
    *_columns("volume", Kind.TEXT, ("overflow", "the file for what the budget does not hold")),
    *_columns(
        "volume",
        Kind.COUNT,
        ("overflow_pages", "pages in the overflow file"),
        ("overflow_reads", "pages read from it"),
        ("overflow_writes", "pages written to it"),
        ("overflow_errors", "times that it failed, or gave back something else"),
    ),
    *_columns(
        "mount",
        Kind.TEXT,
        ("discard", "whether what the kernel frees on a swap volume is freed at once"),
        ("lacking", "what the daemon is not permitted to do to be safe", "UNSAFE"),
    ),
    *_columns(
        "pool",
        Kind.SIZE,
        ("page_size", "size of a page of the pool"),
        ("metadata_bytes", "memory for finding the pool's pages", "METADATA"),
    ),
    *_columns(
        "pool",
        Kind.COUNT,
        ("pages", "pages in the pool"),
        ("objects", "files that have pages in the pool"),
        ("same_pages", "pages of one word repeated, such as zeros; they take no bytes"),
        ("huge_pages", "pages that do not compress and are kept raw"),
        ("puts", "pages that were to be stored"),
        ("good_puts", "pages that were stored"),
        ("no_mem_puts", "pages refused because the budget was full"),
        ("bad_puts", "pages refused for any other cause"),
        ("dup_puts_flushed", "refused pages whose older version was dropped"),
        ("dup_puts_replaced", "stored pages that replaced an older version"),
        ("gets", "pages asked for"),
        ("found_gets", "pages asked for and found"),
        ("flushs", "pages to be dropped because they changed or went away"),
        ("flushs_found", "of these, the ones that were there"),
        ("flush_objs", "files to be dropped whole"),
        ("flush_objs_found", "of these, the ones that had pages"),
        ("corrupt_pages", "stored pages that could not be read back"),
    ),
    *_columns(
        "reclaim",
        Kind.COUNT,
        ("evicted_pgs", "ephemeral pages dropped to make room"),
        ("evict_attempts", "segments of ephemeral pages that were taken back for it"),
        ("moved_pgs", "pages in them that were kept because they had been used"),
        ("pers_ate_eph", "ephemeral pages dropped for persistent ones"),
        ("cleaned_segments", "segments freed by copying out what lived in them"),
        ("written_back_pages", "persistent pages moved to an overflow file"),
        ("pool_limit_hit", "times that no room could be made"),
        ("put_to_flush", "refused pages that took an older version with them"),
    ),
    *_columns(
        "mount",
        Kind.TEXT,
        ("source", "the directory that is shown"),
        ("version", "version of the daemon"),
    ),
    *_columns("mount", Kind.COUNT, ("pid", "process id of the daemon")),
    *_columns("mount", Kind.SECONDS, ("uptime_seconds", "how long it is mounted", "UPTIME")),
    *_columns(
        "failsafe",
        Kind.COUNT,
        ("count", "requests that failed by a mistake of the daemon", "FAILSAFES"),
    ),
    *_columns("failsafe", Kind.TEXT, ("last", "what the last one was", "LAST-FAILSAFE")),
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
