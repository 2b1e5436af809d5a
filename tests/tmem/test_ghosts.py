"""Ghosts: remembered once, forgotten in time, and within the account."""

import pytest

from tmemfs.pages import Arena, Segment
from tmemfs.tmem.ghosts import Ghosts


@pytest.fixture
def arena() -> Arena[Segment]:
    return Arena(1, 4096)


def test_a_ghost_is_taken_once(arena: Arena[Segment]) -> None:
    ghosts = Ghosts(arena)
    ghosts.fit(1000)
    ghosts.add(2**192 - 2, 2**32 - 1)
    assert not ghosts.take(2**192 - 2, 2**32 - 2)
    assert not ghosts.take(2**191, 2**32 - 1)
    assert ghosts.take(2**192 - 2, 2**32 - 1)
    assert not ghosts.take(2**192 - 2, 2**32 - 1)


def test_most_of_nine_for_ten_pages_are_remembered(arena: Arena[Segment]) -> None:
    ghosts = Ghosts(arena)
    ghosts.fit(10_000)
    for index in range(9000):
        ghosts.add(index // 100, index)
    # A few were pushed out of their bucket by younger ones.
    assert 8300 < sum(ghosts.take(index // 100, index) for index in range(9000)) <= 9000
    # What was never there is not mistaken for it.
    for index in range(9000):
        ghosts.add(index // 100, index)
    assert sum(ghosts.take(index // 100 + 7777, index) for index in range(9000)) <= 1


@pytest.mark.parametrize("rounds", [1, 3, 40])
def test_older_ones_are_not(arena: Arena[Segment], rounds: int) -> None:
    """There may be room for them, but they do not count; their age goes round and round."""
    ghosts = Ghosts(arena)
    ghosts.fit(10_000)
    for index in range(rounds * 9600):
        ghosts.add(1, index)
    assert not any(ghosts.take(1, index) for index in range((rounds - 1) * 9600 + 30))


def test_no_table_before_the_first_eviction(arena: Arena[Segment]) -> None:
    ghosts = Ghosts(arena)
    assert not ghosts.take(1, 1)
    assert ghosts.metadata_bytes == arena.metadata_bytes == 0


def test_the_room_follows_the_pool(arena: Arena[Segment]) -> None:
    arena.heap_bytes = 7  # somebody else's
    ghosts = Ghosts(arena)
    for pages, room in [(3, 256), (300, 256), (512, 768), (257, 768), (255, 384), (1, 384)]:
        ghosts.fit(pages)
        assert ghosts.metadata_bytes == 4 * room, pages
        assert arena.metadata_bytes == 7 + 4 * room
    ghosts.add(1, 1)
    ghosts.fit(300)
    assert ghosts.take(1, 1), "near enough: nothing is forgotten"
    ghosts.add(1, 1)
    ghosts.fit(5000)
    assert not ghosts.take(1, 1)
    ghosts.forget()
    assert ghosts.metadata_bytes == 0
    assert arena.metadata_bytes == 7
