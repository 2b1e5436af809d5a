"""The segment log: what is appended is found, what is freed is counted, segments go whole."""

import gc
import random
import tracemalloc

import pytest
from page_data import page, split

from tmemfs.pages import Arena, Segment, SegmentLog, codec
from tmemfs.pages.locations import SIZE_BITS, SIZE_MASK
from tmemfs.pages.log import (
    BYTES_PER_ROW,
    ROW_BYTES,
    SEGMENT_OVERHEAD,
    Lives,
    freed,
    release_empty,
)

SIZE = 128 << 10

pytestmark = pytest.mark.usefixtures("each_reader")


@pytest.fixture
def arena() -> Arena[Segment]:
    return Arena(64, SIZE)


@pytest.fixture
def log(arena: Arena[Segment]) -> SegmentLog:
    return SegmentLog(arena, 4096)


def append(log: SegmentLog, owner: int, index: int, payloads: list[bytes]) -> list[int]:
    """Append all of *payloads*, in as many segments as that takes."""
    locations: list[int] = []
    while len(locations) < len(payloads):
        if not log.fits(len(payloads[len(locations)])):
            log.open_segment()
        more, lives = log.append(payloads[len(locations) :], owner, index + len(locations))
        settle(lives)
        locations += more
    return locations


def settle(lives: Lives) -> None:
    """Let live in segments what is to live there, as the index does."""
    for segment, live in lives:
        segment.live = live
    release_empty([segment for segment, _ in lives])


def free(arena: Arena[Segment], locations: list[int]) -> None:
    settle(freed(arena, locations))


def read(log: SegmentLog, locations: list[int]) -> list[bytes | None]:
    run, missing = log.read(locations)
    pages: list[bytes | None] = list(split(bytes(run), log.page_size))
    for place in missing:
        assert pages[place] == bytes(log.page_size)
        pages[place] = None
    return pages


def test_without_a_segment_nothing_fits(log: SegmentLog) -> None:
    assert not log.fits(0)
    assert log.append([b"payload"], 1, 2) == ([], [])
    assert log.emptiest() is None
    with pytest.raises(StopIteration):
        log.oldest()


@pytest.mark.parametrize("page_size", [4096, 65536])
def test_what_is_appended_is_read(arena: Arena[Segment], page_size: int) -> None:
    log = SegmentLog(arena, page_size)
    pages = [page(i, page_size, kind) for i in range(8) for kind in ("zero", "word", "text", "raw")]
    payloads = [codec.encode(original) for original in pages]
    locations = append(log, 5, 100, payloads)
    assert 0 not in locations
    assert read(log, [0, *locations, 0]) == [None, *pages, None]
    assert [bytes(log.payload(location)) for location in locations] == payloads


def test_a_run_goes_on_in_the_next_segment(log: SegmentLog) -> None:
    log.open_segment()
    payloads = [page(i) for i in range(40)]
    first, lives = log.append(payloads, 1, 0)
    settle(lives)
    assert len(first) == SIZE // 4096
    assert not log.fits(1)
    log.open_segment()
    rest, _ = log.append(payloads[len(first) :], 1, len(first))
    assert read(log, first + rest) == payloads
    assert [segment.row_count for segment in log.segments.values()] == [32, 8]


def test_not_a_byte_beyond_the_end(log: SegmentLog) -> None:
    """The next segment may be another pool's."""
    log.open_segment()
    payloads = [page(i) for i in range(SIZE // 4096 - 1)] + [bytes(4000), bytes(97), bytes(96)]
    assert len(log.append(payloads, 1, 0)[0]) == SIZE // 4096
    assert not log.fits(97)
    assert log.fits(96)


def test_a_page_of_no_bytes_in_a_segment_that_is_full(log: SegmentLog) -> None:
    """It must not be taken for one of the next segment, which begins where this one ends."""
    first = append(log, 1, 0, [page(1)] * (SIZE // 4096))
    head = log.head
    assert head is not None
    assert head.position == head.end
    (location,) = append(log, 1, 40, [b""])
    assert log.head is head
    rest = append(log, 1, 50, [page(2)])
    assert read(log, [location]) == [bytes(4096)]
    assert head.live == (33, 32 * 4096, 1, 32)
    assert list(head.appends())[-1] == (1, 40, location >> SIZE_BITS)
    free(log.arena, first)
    assert read(log, [location, *rest]) == [bytes(4096), page(2)]
    free(log.arena, [location])
    assert list(log.segments.values()) == [log.head] != [head]


def test_pages_of_no_bytes_fill_a_segment_too(log: SegmentLog) -> None:
    log.open_segment()
    rows = SIZE // BYTES_PER_ROW
    assert len(log.append([b""] * (rows + 5), 1, 0)[0]) == rows
    assert not log.fits(0)
    assert log.append([b""], 1, 0) == ([], [])


def test_rows_lead_back_to_the_pages(log: SegmentLog) -> None:
    locations = append(log, 7, 2**32 - 3, [page(1), b"", b"12345678"])
    locations += append(log, 2**32 - 1, 0, [b"9" * 20])
    starts = [location >> SIZE_BITS for location in locations]
    assert list(log.oldest().appends()) == [
        (7, 2**32 - 3, starts[0]),
        (7, 2**32 - 2, starts[1]),
        (7, 2**32 - 1, starts[2]),
        (2**32 - 1, 0, starts[3]),
    ]
    assert [location & SIZE_MASK for location in locations] == [4096, 0, 8, 20]


def test_order_oldest_and_emptiest(arena: Arena[Segment], log: SegmentLog) -> None:
    per_segment = SIZE // 4096
    locations = append(log, 1, 0, [page(i) for i in range(4 * per_segment)])
    first, second, third, head = log.segments.values()
    assert log.oldest() is first
    assert log.head is head
    assert log.emptiest() is first, "all are as full, so the oldest"
    free(arena, locations[per_segment : per_segment + 3])
    free(arena, locations[2 * per_segment : 2 * per_segment + 2])
    free(arena, locations[3 * per_segment : 3 * per_segment + 20])
    assert log.emptiest() is second, "the head is emptier, but it is being filled"
    assert second.dead_bytes == 3 * (4096 + BYTES_PER_ROW)
    assert third.dead_bytes == 2 * (4096 + BYTES_PER_ROW)
    log.release(first)
    assert log.oldest() is second


def test_dead_bytes_of_pages_that_need_only_rows(log: SegmentLog) -> None:
    locations = append(log, 1, 0, [b""] * 1000)
    segment = log.oldest()
    assert segment.live[1] == segment.dead_bytes == 0
    free(log.arena, locations[:300])
    assert segment.dead_bytes == 300 * BYTES_PER_ROW


def test_freeing_counts_and_the_last_page_takes_the_segment(
    arena: Arena[Segment], log: SegmentLog
) -> None:
    payloads = [b"", b"8" * 8, b"x" * 9, b"y" * 4095, page(1)]
    locations = append(log, 1, 0, payloads)
    expected = {"pages": 5, "compr_data_size": 8208, "same_pages": 2, "huge_pages": 1}
    sizes = {"mem_used_total": SIZE, "metadata_bytes": SEGMENT_OVERHEAD + 5 * ROW_BYTES}
    assert log.statistics() == expected | sizes
    free(arena, [locations[1], locations[4]])
    expected = {"pages": 3, "compr_data_size": 4104, "same_pages": 1, "huge_pages": 0}
    assert log.statistics() == expected | sizes
    assert read(log, [locations[0]]) == [bytes(4096)]
    free(arena, [locations[0], locations[2], locations[3]])
    assert set(log.statistics().values()) == {0}
    assert log.head is None
    assert (arena.used_segments, arena.charged_bytes, arena.holders) == (0, 0, {})


def test_pages_of_two_logs_are_freed_together(arena: Arena[Segment], log: SegmentLog) -> None:
    other = SegmentLog(arena, 8192)
    mine = append(log, 1, 0, [page(1), page(2)])
    theirs = append(other, 1, 0, [page(3, 8192), page(4, 8192)])
    free(arena, [mine[0], theirs[0]])
    assert read(log, mine[1:]) == [page(2)]
    assert read(other, theirs[1:]) == [page(4, 8192)]
    assert (log.statistics()["huge_pages"], other.statistics()["huge_pages"]) == (1, 1)


def test_release_gives_back_what_is_in_it(arena: Arena[Segment], log: SegmentLog) -> None:
    append(log, 1, 0, [page(i) for i in range(40)])
    log.release(log.oldest())
    assert arena.used_segments == 1
    assert log.statistics()["pages"] == 8
    log.release(log.oldest())
    assert log.head is None
    assert arena.charged_bytes == 0


def test_the_metadata_account_follows(arena: Arena[Segment], log: SegmentLog) -> None:
    source = random.Random(1)
    live: list[int] = []
    for step in range(400):
        live += append(log, 1, step, [b"z" * source.randrange(2000) for _ in range(5)])
        source.shuffle(live)
        free(arena, live[:4])
        del live[:4]
        rows = sum(segment.row_count for segment in log.segments.values())
        count = len(log.segments)
        assert arena.metadata_bytes == rows * ROW_BYTES + count * SEGMENT_OVERHEAD
        assert arena.used_segments == count
        assert log.statistics()["metadata_bytes"] == arena.metadata_bytes
    free(arena, live)
    assert arena.charged_bytes == 0


@pytest.mark.parametrize(
    ("segment_size", "payload"),
    [(128 << 10, 0), (1 << 20, 1000), (1 << 20, 4096), (128 << 10, 2000), (128 << 10, 65536)],
)
def test_the_charge_is_what_python_takes(segment_size: int, payload: int) -> None:
    """`ROW_BYTES` and `SEGMENT_OVERHEAD` are within a sixth of the truth."""
    segments = 40
    arena: Arena[Segment] = Arena(segments, segment_size)
    log = SegmentLog(arena, 65536)
    payloads = [bytes(payload)] * 256
    gc.collect()
    tracemalloc.start()
    index = 0
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(segments):
            log.open_segment()
            while log.fits(payload):
                locations, lives = log.append(payloads, 1, index)
                settle(lives)
                index += len(locations)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.85 < (after - before) / arena.metadata_bytes < 1.15
