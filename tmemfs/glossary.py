"""What each number of the status means: said once, for the table, for Prometheus and the manual.

A figure is found by the part of `status.json` that it is in and by its name there. The parts are
``memory``, ``reclaim``, ``cache``, ``lane``, ``failsafe``, ``pool`` (each of ``pools``), ``swap``
(each of ``swaps``) and ``mount`` (the top).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Unit(enum.Enum):
    """What is counted."""

    COUNT = ""
    BYTES = "bytes"
    SECONDS = "seconds"


@dataclass(frozen=True, slots=True)
class Figure:
    """One number: a *counter* only counts up, from 0 at the mount; the others are as of now."""

    meaning: str
    unit: Unit
    counter: bool


def _figures(
    section: str, unit: Unit, counter: bool, **meanings: str
) -> dict[tuple[str, str], Figure]:
    return {(section, key): Figure(text, unit, counter) for key, text in meanings.items()}


FIGURES = {
    **_figures(
        "memory",
        Unit.BYTES,
        False,
        mem_limit="the budget of the mount",
        mem_used_total="memory that the pages of all pools take",
        mem_used_max="the most memory that they have taken",
        metadata_bytes="memory for finding the pages of all pools",
        orig_data_size="size of all pages, uncompressed",
        compr_data_size="size of all pages, compressed",
        segment_size="size of the pieces in which pools take memory",
        rss_bytes="resident memory of the daemon",
    ),
    **_figures(
        "memory",
        Unit.COUNT,
        False,
        same_pages="pages of one word repeated, in all pools",
        huge_pages="pages that do not compress, in all pools",
    ),
    **_figures(
        "pool",
        Unit.BYTES,
        False,
        orig_data_size="size of the pool's pages, uncompressed",
        compr_data_size="size of the pool's pages, compressed",
        mem_used_total="memory the pool takes, with what is not yet freed",
        page_size="size of a page of the pool",
        metadata_bytes="memory for finding the pool's pages",
    ),
    **_figures(
        "pool",
        Unit.COUNT,
        False,
        pages="pages in the pool",
        objects="files that have pages in the pool",
        same_pages="pages of one word repeated, such as zeros; they take no bytes",
        huge_pages="pages that do not compress and are kept raw",
        overflow_pages="pages in the overflow file",
    ),
    **_figures(
        "pool",
        Unit.COUNT,
        True,
        puts="pages that were to be stored",
        good_puts="pages that were stored",
        no_mem_puts="pages refused because the budget was full",
        bad_puts="pages refused for any other cause",
        dup_puts_flushed="refused pages whose older version was dropped",
        dup_puts_replaced="stored pages that replaced an older version",
        gets="pages asked for",
        found_gets="pages asked for and found",
        flushs="times that pages were to be dropped because they changed or went away",
        flushs_found="pages dropped because they changed or went away",
        flush_objs="files to be dropped whole",
        flush_objs_found="files dropped whole that had pages",
        corrupt_pages="stored pages that could not be read back",
    ),
    **_figures(
        "reclaim",
        Unit.COUNT,
        True,
        evicted_pgs="ephemeral pages dropped to make room",
        evict_attempts="segments of ephemeral pages that were taken back",
        moved_pgs="ephemeral pages that had been used, kept when their segment was taken back",
        pers_ate_eph="ephemeral pages dropped to make room for persistent ones",
        cleaned_segments="segments of persistent pages freed by moving what was left in them",
        written_back_pages="persistent pages moved to an overflow file",
        pool_limit_hit="times that there was nothing to drop",
        put_to_flush="refused pages that took an older version with them",
    ),
    **_figures(
        "cache",
        Unit.COUNT,
        True,
        backing_reads="reads of the source",
        backing_writes="writes to the source",
        shared_reads="misses that waited for another one's read of the source",
        readahead_reads="reads of the source ahead of who reads in order",
        readahead_pages="pages read ahead of who reads in order",
        stale_objects="files whose pages were dropped because they had changed behind the mount",
        recalled_attributes="times that attributes were known, and the source was not asked",
        recalled_names="names that were known to be there or not, and the source was not asked",
        listed_directories="directories that were listed because many of their names were wanted",
    ),
    **_figures(
        "cache",
        Unit.BYTES,
        True,
        backing_read_bytes="bytes read from the source",
        backing_write_bytes="bytes written to the source",
    ),
    **_figures(
        "cache",
        Unit.COUNT,
        False,
        open_files="files of the source that are open now",
        known_inodes="files and directories that the kernel knows now",
        open_descriptors="descriptors the daemon has open to reach them",
        threads_waiting="calls to the source that are under way in threads now",
    ),
    **_figures(
        "lane",
        Unit.COUNT,
        True,
        answered="requests answered by threads in C, without the interpreter",
        handed_over="requests that these threads have read and could not answer",
    ),
    **_figures(
        "lane",
        Unit.COUNT,
        False,
        threads="threads that answer requests without the interpreter",
        grants="open files of which they may answer requests now",
    ),
    **_figures(
        "swap",
        Unit.BYTES,
        False,
        size="size of the swap volume",
        write_buffer_bytes="pages that were acknowledged and are not stored yet",
    ),
    **_figures(
        "swap",
        Unit.COUNT,
        True,
        overflow_reads="pages read from the overflow file",
        overflow_writes="pages written to the overflow file",
        overflow_errors="times that the overflow file failed, or gave back something else",
    ),
    **_figures(
        "failsafe", Unit.COUNT, True, count="errors of the daemon itself, after which it went on"
    ),
    **_figures("mount", Unit.SECONDS, False, uptime_seconds="how long it is mounted"),
}
"""Every number there is to show, by (part, name)."""
