"""How far ahead a window reaches."""

from itertools import pairwise

from tmemfs.cachefs.shared import Window

MOST = 512


def in_order(window: Window, reads: int, count: int = 1, first: int = 0) -> list[tuple[int, int]]:
    """What is read ahead of `reads` reads of `count` pages, one after the other."""
    ahead = (
        window.advance(at, at + count, MOST) for at in range(first, first + reads * count, count)
    )
    return [found for found in ahead if found]


def test_it_covers_every_page_once() -> None:
    parts = in_order(Window(), 3000)
    assert parts[0][0] == 1  # behind what was just read
    assert all(end == start for (_, end), (start, _) in pairwise(parts))


def test_it_grows_to_the_most_and_no_further() -> None:
    window = Window()
    sizes = []
    for at in range(4000):
        found = window.advance(at, at + 1, MOST)
        if found:
            sizes.append(found[1] - at - 1)  # how far ahead of the reader it reaches
    assert sizes == sorted(sizes)
    assert sizes[0] == 8
    assert sizes[-1] == window.size == MOST


def test_it_is_ahead_by_half_of_itself_at_least() -> None:
    window, edge = Window(), 0
    for at in range(0, 4000, 4):
        found = window.advance(at, at + 4, MOST)
        edge = found[1] if found else edge
        assert edge - (at + 4) >= window.size // 2


def test_a_read_elsewhere_closes_it() -> None:
    window = Window()
    in_order(window, 1000)
    assert window.size == MOST
    assert window.advance(50_000, 50_001, MOST) is None
    assert window.size == 0
    assert window.advance(9, 10, MOST) is None
    # From there on it starts small again.
    assert in_order(window, 1, first=10) == [(11, 19)]


def test_reads_at_random_read_nothing_ahead() -> None:
    window = Window()
    places = [7919 * step % 100_003 for step in range(1, 500)]
    assert [place for place in places if window.advance(place, place + 1, MOST)] == []


def test_parts_of_a_page_and_requests_that_pass_each_other_are_in_order() -> None:
    window = Window()
    for first in (0, 0, 1, 1, 3, 2, 4):
        window.advance(first, first + 1, MOST)
        assert window.size > 0


def test_a_request_larger_than_the_window_opens_it_wider() -> None:
    assert Window().advance(0, 128, MOST) == (128, 384)


def test_nothing_where_there_is_no_more_to_be_ahead() -> None:
    assert [found for at in range(9) if (found := Window().advance(at, at + 1, 0))] == []
