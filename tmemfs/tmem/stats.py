"""The counters of pools and of reclaim, by the names that operators know.

Pool counters are those of Xen's tmem; the sizes are those of zram's ``mm_stat``.
"""

from dataclasses import dataclass, fields


@dataclass(slots=True)
class PoolCounters:
    """What was asked of a pool since it was made: pages, apart from calls that flush.

    Always true: ``puts == good_puts + no_mem_puts + bad_puts`` and
    ``found_gets + missed_gets == gets``.
    """

    puts: int = 0
    good_puts: int = 0
    no_mem_puts: int = 0
    """refused: the budget is full of what may not go away"""
    bad_puts: int = 0
    """refused: object id or index out of range, the pool destroyed, or the page not encoded"""
    dup_puts_replaced: int = 0
    dup_puts_flushed: int = 0
    """refused, and the older page that was there is gone"""
    gets: int = 0
    found_gets: int = 0
    flushs: int = 0
    """calls that flush pages: a run may be far longer than what is there"""
    flushs_found: int = 0
    """pages that went with them"""
    flush_objs: int = 0
    """calls that flush an object"""
    flush_objs_found: int = 0
    """of these, calls that found one"""
    corrupt_pages: int = 0
    """stored pages that did not decode"""

    def count_puts(self, puts: int, good: int, no_mem: int, replaced: int, flushed: int) -> None:
        """Count puts, of which those that are neither *good* nor *no_mem* are bad.

        All at once: an error in the middle (memory for an int) must not leave them to disagree.
        """
        (
            self.puts,
            self.good_puts,
            self.no_mem_puts,
            self.bad_puts,
            self.dup_puts_replaced,
            self.dup_puts_flushed,
        ) = (
            self.puts + puts,
            self.good_puts + good,
            self.no_mem_puts + no_mem,
            self.bad_puts + puts - good - no_mem,
            self.dup_puts_replaced + replaced,
            self.dup_puts_flushed + flushed,
        )

    @property
    def missed_gets(self) -> int:
        """Gets that found nothing."""
        return self.gets - self.found_gets


@dataclass(slots=True)
class ReclaimCounters:
    """How memory was taken back, since the core was made."""

    evict_attempts: int = 0
    """segments of ephemeral pools that were reclaimed"""
    evicted_pgs: int = 0
    """ephemeral pages that went with them"""
    moved_pgs: int = 0
    """ephemeral pages that were kept because they had been used"""
    pers_ate_eph: int = 0
    """ephemeral pages that went because a persistent page needed the memory"""
    cleaned_segments: int = 0
    """segments freed by copying out what lived in them"""
    written_back_pages: int = 0
    """persistent pages moved to an overflow file"""
    pool_limit_hit: int = 0
    """times nothing could be taken back"""
    put_to_flush: int = 0
    """refused puts that took an older page of the same handle with them"""


def as_dict(counters: PoolCounters | ReclaimCounters) -> dict[str, int]:
    """Return the counters by name."""
    return {field.name: getattr(counters, field.name) for field in fields(counters)}
