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


def test_most_of_as_many_as_there_are_pages_are_remembered(arena: Arena[Segment]) -> None:
    ghosts = Ghosts(arena)
    ghosts.fit(10_000)
    for index in range(10_000):
        ghosts.add(index // 100, index)
    # Each entry belongs to the last ghost that fell upon it: at least some 1 - 1/e are left.
    found = sum(ghosts.take(index // 100, index) for index in range(10_000))
    assert 6200 < found < 10_000
    # What was never there is not mistaken for it.
    for index in range(10_000):
        ghosts.add(index // 100, index)
    assert not any(ghosts.take(index // 100 + 7777, index) for index in range(10_000))


def test_no_table_before_the_first_eviction(arena: Arena[Segment]) -> None:
    ghosts = Ghosts(arena)
    assert not ghosts.take(1, 1)
    assert ghosts.metadata_bytes == arena.metadata_bytes == 0


def test_the_room_follows_the_pool(arena: Arena[Segment]) -> None:
    arena.metadata_bytes = 7  # somebody else's
    ghosts = Ghosts(arena)
    for pages, room in [(3, 256), (300, 256), (512, 256), (513, 513), (257, 513), (200, 256)]:
        ghosts.fit(pages)
        assert ghosts.metadata_bytes == 4 * room, pages
        assert arena.metadata_bytes == 7 + 4 * room
    ghosts.add(1, 1)
    ghosts.fit(500)
    assert ghosts.take(1, 1), "near enough: nothing is forgotten"
    ghosts.add(1, 1)
    ghosts.fit(5000)
    assert not ghosts.take(1, 1)
    ghosts.forget()
    assert ghosts.metadata_bytes == 0
    assert arena.metadata_bytes == 7
