"""Reclaims memory: which pool gives back what, and in what order.

1. segments of destroyed pools, and free ones;
2. ephemeral pages, the oldest segment of the pool that has most (S3-FIFO within the pool);
3. dead space: what lives in the emptiest persistent segment is copied out;
4. nothing: the put is refused.

A persistent page is never given up. Where its client overflows, it moves pages to a file ahead of
need (`tmemfs.tmem.writeback`), which takes time, so that a put cannot wait for it here. A few
segments are held back from puts, so that copying pages out of a segment, which needs another one
first, can always proceed.
"""

from __future__ import annotations

from collections.abc import Iterator

from tmemfs.pages import Arena, Segment, SegmentLog
from tmemfs.pages.arena import WARM_SEGMENTS
from tmemfs.pages.locations import SIZE_BITS, is_overflowed
from tmemfs.pages.log import BYTES_PER_ROW, ROW_BYTES, SEGMENT_OVERHEAD, release_empty
from tmemfs.tmem.ephemeral import EphemeralPool
from tmemfs.tmem.persistent import PersistentPool
from tmemfs.tmem.pool import Pool
from tmemfs.tmem.stats import ReclaimCounters
from tmemfs.tmem.storage import Pages

# Held back: moving the pages of one segment takes at most one other before it gives one. The
# arena's warm segments are memory as well, and are covered by the same reserve.
RESERVE_SEGMENTS = max(WARM_SEGMENTS, 1)
# A pool's pages are new for as long as this part of its segments allows.
NEW_SHARE = 10
# A put reclaims so many segments, each up to a few milliseconds, with a second chance for used
# pages; where all of them are used it would walk through the whole pool otherwise, and everybody
# else would wait for it.
TRIES_LIMIT = 4
# Cleaning must gain at least this part of a segment, or it would go round and round.
CLEANING_GAIN = 16


class Reclaim:
    """Keeps what the arena is charged with within *limit* bytes, at the cost of *pools*."""

    def __init__(self, arena: Arena[Segment], limit: int) -> None:
        self.limit = limit
        self.counters = ReclaimCounters()
        self._arena = arena
        # Destroyed ones too, until all their memory is back.
        self._pools: list[Pool] = []

    @property
    def pools(self) -> list[Pool]:
        """The pools that are not destroyed, in the order in which they were made."""
        return [pool for pool in self._pools if not pool.destroyed]

    def add(self, pool: Pool) -> None:
        """Let *pool* take memory from now on, and give it."""
        self._pools.append(pool)

    def make_room(self, segments: int, pool: Pool) -> bool:
        """Make sure that *pool* may take *segments* more, taking memory back where needed.

        Returns False when that is not possible; what was taken back stays free.
        """
        reserved = (segments + RESERVE_SEGMENTS) * self._arena.segment_size
        tries = TRIES_LIMIT
        while self._arena.charged_bytes + reserved > self.limit:
            if not self._take_back(pool, spare_used=tries > 0):
                self.counters.pool_limit_hit += 1
                return False
            tries -= 1
        return True

    def shrink(self, segments: int) -> bool:
        """Take back up to *segments* segments that are above the limit; say whether more are."""
        reserved = RESERVE_SEGMENTS * self._arena.segment_size
        for _ in range(segments):
            if self._arena.charged_bytes + reserved > self.limit:
                if not self._take_back(None, spare_used=True):
                    return False
            elif not self._arena.trim(self.limit):
                return False
        return True

    def must_keep(self) -> int:
        """Return the smallest limit in bytes that what is persistent now can be packed into."""
        size = self._arena.segment_size
        need = RESERVE_SEGMENTS + 1
        metadata = 0
        for pool in self.pools:
            if isinstance(pool, PersistentPool):
                metadata += pool.objects.metadata_bytes
                if pool.overflows:
                    need += len(pool.logs())  # the heads; the rest can go outside
                    continue
                used = pool.log.segments.values()
                rows = pool.objects.pages
                live = sum(segment.live[1] for segment in used) + BYTES_PER_ROW * rows
                # Cleaning leaves at most one part in CLEANING_GAIN, and a page, in each segment.
                dense = size - size // CLEANING_GAIN - pool.page_size
                need += min(-(-live // dense) + 1, len(used)) if live else 0
                metadata += ROW_BYTES * rows
        return need * (size + SEGMENT_OVERHEAD) + metadata

    def sweep(self, segments: int) -> bool:
        """Free up to *segments* segments of destroyed pools; say whether there are more."""
        for pool in [pool for pool in self._pools if pool.destroyed]:
            # What an error may have left.
            pool.close()
            for log in pool.logs():
                while log.segments:
                    if not segments:
                        return True
                    log.release(log.oldest())
                    segments -= 1
            self._pools.remove(pool)
        return False

    # -- the order ---------------------------------------------------------------------------

    def _take_back(self, pool: Pool | None, *, spare_used: bool) -> bool:
        used = self._arena.used_segments
        self._arena.release_empty()
        self.sweep(1)
        if self._arena.used_segments < used:
            return True
        fattest = max(
            (p for p in self.pools if isinstance(p, EphemeralPool)),
            key=lambda p: p.segments,
            default=None,
        )
        if fattest is not None and fattest.segments:
            evicted = self._evict(fattest, spare_used=spare_used)
            if isinstance(pool, PersistentPool):
                self.counters.pers_ate_eph += evicted
            return True
        return self._forget_ghosts() or self._arena.recall() or self._clean()

    def _evict(self, pool: EphemeralPool, *, spare_used: bool = True) -> int:
        """Reclaim one segment of *pool*; return how many pages went with it.

        With *spare_used*, pages of new that were used again move to main instead, and those of
        main that were used go round once more.
        """
        new, main = pool.new, pool.main
        if not main.segments:
            # The first time. Of what came before, all but a tenth is main's; new would drop it in
            # the order in which it came, and a loop that is longer than the pool would never hit.
            pool.divide(NEW_SHARE)
        from_new = new.segments and (
            not main.segments or len(new.segments) * NEW_SHARE > pool.segments
        )
        segment = (new if from_new else main).oldest()
        self.counters.evict_attempts += 1
        evicted = 0
        _retire(segment)
        pool.ghosts.fit(pool.objects.pages)
        # Who reads a page in two halves, or has it read ahead, uses it once; that is not yet a use.
        enough = 2 if from_new else 1
        for owner, index, location in live_pages(pool, segment):
            if spare_used and owner.uses(index) >= enough:
                _move(pool, main, owner, index, location)
                self.counters.moved_pgs += 1
            else:
                if from_new:
                    pool.ghosts.add(owner.id, index)
                evicted += pool.objects.remove(owner, index, index + 1)
        self.counters.evicted_pgs += evicted
        return evicted

    def _forget_ghosts(self) -> bool:
        """Give up the ghosts of pools that have no page left; say whether there were any."""
        before = self._arena.metadata_bytes
        for pool in self.pools:
            if isinstance(pool, EphemeralPool):
                pool.ghosts.forget()
        return self._arena.metadata_bytes < before

    def _clean(self) -> bool:
        """Copy what lives in the emptiest persistent segment elsewhere, if that is worth it."""
        candidates = [
            (pool, segment)
            for pool in self.pools
            if isinstance(pool, PersistentPool)
            for log in pool.logs()
            if (segment := log.emptiest())
        ]
        if not candidates:
            return False
        pool, segment = max(candidates, key=lambda found: found[1].dead_bytes)
        if segment.dead_bytes < self._arena.segment_size // CLEANING_GAIN:
            return False
        _retire(segment)
        for owner, index, location in live_pages(pool, segment):
            _move(pool, segment.log, owner, index, location)
        self.counters.cleaned_segments += 1
        return True


def _retire(segment: Segment) -> None:
    """Let nothing more be appended to *segment*; one in which nothing lives goes."""
    if segment.log.head is segment:
        segment.log.head = None
    release_empty((segment,))


def _move(pool: Pool, log: SegmentLog, owner: Pages, index: int, location: int) -> None:
    """Append the page again in *log*, out of the reserve if need be, and mark it unused."""
    payload = log.payload(location)
    if not log.fits(len(payload)):
        log.open_segment()
    locations, lives = log.append((payload,), owner.number, index)
    pool.objects.store(owner, index, locations, lives)


def live_pages(pool: Pool, segment: Segment) -> Iterator[tuple[Pages, int, int]]:
    """Yield (object, index, location) of each page of *pool* that lives in *segment*.

    The page may be moved or removed before the next one is asked for. The segment is given back
    when its last page goes, unless it is pinned.
    """
    for number, index, start in segment.appends():
        if not segment.live_pages:
            break
        owner = pool.objects.owner(number)
        if owner is not None:
            location = owner.location(index)
            if location and location >> SIZE_BITS == start and not is_overflowed(location):
                yield owner, index, location
