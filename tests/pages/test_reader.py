"""A run of pages is read by the extension, or by Python: the same bytes, the same complaints."""

import random

import pytest
from page_data import KINDS, page

from tmemfs.errors import CorruptPage
from tmemfs.pages import codec, reader
from tmemfs.pages.locations import OUTSIDE, SIZE_BITS

pytestmark = pytest.mark.usefixtures("each_reader")


def stored(pages: list[bytes | None], start: int = 0) -> tuple[memoryview, list[int]]:
    """An arena with *pages* in it, from *start* on, and where each is; 0 for None."""
    arena = bytearray(start)
    locations = []
    for each in pages:
        payload = b"" if each is None else codec.encode(each)
        locations.append(0 if each is None else len(arena) << SIZE_BITS | len(payload))
        arena += payload
    return memoryview(bytes(arena)), locations


@pytest.mark.parametrize("page_size", [4096, 8192, 65536])
def test_every_kind_of_page_and_none(page_size: int) -> None:
    pages: list[bytes | None] = [page(seed, page_size, kind) for seed in (1, 2) for kind in KINDS]
    pages += [None] * 4
    random.Random(page_size).shuffle(pages)
    run, missing = reader.read(*stored(pages, start=1), page_size)
    assert run == b"".join(bytes(page_size) if each is None else each for each in pages)
    assert missing == [place for place, each in enumerate(pages) if each is None]


def test_nothing_at_all() -> None:
    assert reader.read(memoryview(b""), [], 4096) == (b"", [])
    assert reader.read(memoryview(b""), [0, 0], 4096) == (bytes(8192), [0, 1])


@pytest.mark.parametrize("length", [1, 7, 9, 4095, 4097, OUTSIDE])
def test_a_length_that_is_no_page(length: int) -> None:
    arena, locations = stored([page(1), page(2, kind="text")])
    with pytest.raises(CorruptPage):
        reader.read(arena, [locations[0], 1 << SIZE_BITS | length], 4096)


def test_a_page_beyond_the_arena() -> None:
    """It cannot be, and is no page rather than what happens to be there."""
    arena, locations = stored([page(1, kind="text"), page(2, kind="text")])
    with pytest.raises(CorruptPage):
        reader.read(arena[:-1], locations, 4096)
    beyond = len(arena) << SIZE_BITS | 100
    with pytest.raises(CorruptPage):
        reader.read(arena, [locations[0], beyond], 4096)


def test_a_damaged_block_that_would_be_longer_than_a_page() -> None:
    arena, locations = stored([random.Random(1).randbytes(1000).ljust(65536, b"\0")])
    assert codec.WORD < len(arena) < 4096
    with pytest.raises(CorruptPage):
        reader.read(arena, locations, 4096)


def test_what_is_no_location() -> None:
    with pytest.raises(TypeError):
        reader.read(memoryview(b""), ["1"], 4096)  # type: ignore[list-item]
