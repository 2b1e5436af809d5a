"""The core's account, recounted from what is really there, and compared with what it says."""

import os
from collections import Counter

from tmemfs.pages import Segment
from tmemfs.pages.arena import WARM_SEGMENTS
from tmemfs.pages.locations import SIZE_BITS, SIZE_MASK, is_overflowed
from tmemfs.pages.log import ROW_BYTES, SEGMENT_OVERHEAD
from tmemfs.tmem import Core, Pool
from tmemfs.tmem.ephemeral import EphemeralPool
from tmemfs.tmem.objects import (
    MAPS,
    NODE_BITS,
    NODE_OVERHEAD,
    NODE_PAGES,
    OBJECT_OVERHEAD,
    Object,
)
from tmemfs.tmem.persistent import PersistentPool

SIZES = (
    "orig_data_size",
    "compr_data_size",
    "same_pages",
    "huge_pages",
    "mem_used_total",
    "metadata_bytes",
)


def check_account(
    core: Core, *, settled: bool = True, pinned: bool = False, failed: bool = False
) -> None:
    """Fail where any figure of *core* is not what a recount gives.

    Not *settled*: the budget has been lowered, and not everything above it is back yet. *pinned*:
    pages are on their way to an overflow file. *failed*: an error has passed through, so that
    segments in which nothing lives, and tables of pools that are going, may not be back yet.
    """
    arena = core._arena
    figures = core.statistics()
    memory, pools = figures["memory"], figures["pools"]
    dying = [
        segment
        for pool in core._reclaim._pools
        if pool.destroyed
        for log in pool.logs()
        for segment in log.segments.values()
    ]
    used, metadata = len(dying), _rows(dying)
    going = sum(pool.tables_bytes for pool in core._reclaim._pools if pool.destroyed)
    assert failed or not going
    metadata += going
    for pool, told in zip(core.pools, pools, strict=True):
        check_pool(pool, told, pinned=pinned, failed=failed)
        used += pool.segments
        metadata += told["metadata_bytes"]
    assert arena.used_segments == used == len(arena.holders)
    assert arena.metadata_bytes == metadata + arena.lent
    assert arena.charged_bytes - arena.lent == memory["mem_used_total"] + memory["metadata_bytes"]
    for key in SIZES:
        of_dying = {
            "mem_used_total": len(dying) * arena.segment_size,
            "metadata_bytes": _rows(dying) + going,
        }
        assert memory[key] == sum(told[key] for told in pools) + of_dying.get(key, 0), key
    assert memory["mem_used_total"] <= memory["mem_used_max"]
    assert memory["mem_limit"] == core.budget
    if settled:
        assert arena.charged_bytes <= core.budget
        # So are segments that are warm, tables not counted, but for what the budget holds back.
        few = WARM_SEGMENTS * arena.segment_size
        assert arena.used_bytes + max(arena.warm_bytes, few) <= core.budget + few

    # No segment is lost, and none is in two places.
    places = [*arena._free[: arena._cold + arena._warm], *arena.holders]
    assert sorted(places) == list(range(1, len(arena._free) + 1))
    assert failed or arena._warm <= arena.warm_wanted


def check_pool(
    pool: Pool, told: dict[str, int], *, pinned: bool = False, failed: bool = False
) -> None:
    """Fail where a pool's figures, *told* by it, are not what a recount gives."""
    found: dict[int, Counter[str]] = {}
    tables = pages = overflowed = 0
    for owner in pool.objects:
        assert pool.objects.find(owner.id) == pool.objects.owner(owner.number) == owner
        tables += OBJECT_OVERHEAD
        locations = list(places(owner).values())
        assert len(locations) == owner.pages > 0
        pages += owner.pages
        for node in owner.nodes.values():
            assert any(node[MAPS:])
            assert len(node) <= MAPS + NODE_PAGES
            tables += NODE_OVERHEAD + 8 * len(node)
        for location in locations:
            if is_overflowed(location):
                overflowed += 1
                continue
            start, size = location >> SIZE_BITS, location & SIZE_MASK
            counted = found.setdefault(start >> pool.arena.segment_bits, Counter())
            counted["pages"] += 1
            counted["bytes"] += size
            counted["same"] += size <= 8
            counted["huge"] += size == pool.page_size
    if isinstance(pool, EphemeralPool):
        tables += 4 * len(pool.ghosts._table)
    if isinstance(pool, PersistentPool):
        assert told["overflow_pages"] == pool.overflow_pages == overflowed
        assert pool.overflows or not overflowed
    else:
        assert not overflowed

    segments = [segment for log in pool.logs() for segment in log.segments.values()]
    # Only what is on its way to a file keeps a segment in which nothing lives any more.
    empty = [segment for segment in segments if not segment.live_pages]
    kept = {segment.number for segment in empty if segment.pins or failed}
    assert {segment.number for segment in segments} == set(found) | kept
    assert not set(found) & kept
    assert pinned or not any(segment.pins for segment in segments)
    total: Counter[str] = Counter()
    for log in pool.logs():
        assert log.head is None or log.head is log.segments[log.head.number]
        for number, segment in log.segments.items():
            counted = found.get(number, Counter())
            assert segment is pool.arena.holders[number]
            assert segment.log is log
            names = ("pages", "bytes", "same", "huge")
            assert segment.live == tuple(counted[name] for name in names)
            assert segment.start <= segment.position <= segment.end
            total += counted
    assert pool.objects.pages == pages
    assert told["objects"] == len(pool.objects)
    assert told["pages"] == pages
    assert told["orig_data_size"] == pages * pool.page_size
    assert told["compr_data_size"] == total["bytes"]
    assert told["same_pages"] == total["same"]
    assert told["huge_pages"] == total["huge"]
    assert told["mem_used_total"] == len(segments) * pool.arena.segment_size
    assert told["metadata_bytes"] == tables + _rows(segments)

    assert told["puts"] == told["good_puts"] + told["no_mem_puts"] + told["bad_puts"]
    assert told["dup_puts_replaced"] <= told["good_puts"]
    assert told["dup_puts_flushed"] <= told["no_mem_puts"] + told["bad_puts"]
    assert told["found_gets"] <= told["gets"]
    assert told["flush_objs_found"] <= told["flush_objs"]


def places(owner: Object) -> dict[int, int]:
    """The index and the location of every page of an object."""
    return {
        (number << NODE_BITS) + low: location
        for number, node in owner.nodes.items()
        for low, location in enumerate(node[MAPS:])
        if location
    }


def resident() -> int:
    """Bytes of memory that this process has."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _rows(segments: list[Segment]) -> int:
    return sum(SEGMENT_OVERHEAD + ROW_BYTES * segment.row_count for segment in segments)
