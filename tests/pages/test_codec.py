"""The codec: every page comes back, each kind takes what it should, and damage is told."""

import lz4.block
import pytest
from hypothesis import given
from hypothesis import strategies as st
from page_data import KINDS, page

from tmemfs.errors import CorruptPage
from tmemfs.pages import codec

SIZES = (4096, 8192, 16384, 32768, 65536)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_page_comes_back(kind: str, size: int) -> None:
    for seed in range(5):
        original = page(seed, size, kind)
        payload = codec.encode(original)
        assert codec.decode(payload, len(payload), size) == original
        assert codec.decode(memoryview(payload), len(payload), size) == original


@pytest.mark.parametrize("size", SIZES)
def test_the_length_tells_the_kind(size: int) -> None:
    assert codec.encode(page(1, size, "zero")) == b""
    assert codec.encode(page(1, size, "word")) == (2).to_bytes(8, "little")
    assert codec.encode(page(1, size, "raw")) == page(1, size, "raw")
    assert 8 < len(codec.encode(page(1, size, "text"))) < size


@given(st.binary(min_size=1, max_size=40), st.sampled_from(SIZES))
def test_repeated_patterns(pattern: bytes, size: int) -> None:
    """Short periods are where the kinds are easily mistaken for each other."""
    original = (pattern * (size // len(pattern) + 1))[:size]
    payload = codec.encode(original)
    assert codec.decode(payload, len(payload), size) == original
    same = original == original[:8] * (size // 8)
    assert (len(payload) <= 8) == same


@pytest.mark.parametrize("at", [0, 7, 8, 2048, 4087, 4088, 4095])
def test_one_byte_more_is_not_same_filled(at: int) -> None:
    original = bytearray(4096)
    original[at] = 1
    payload = codec.encode(bytes(original))
    assert len(payload) > 8
    assert codec.decode(payload, len(payload), 4096) == original


def test_raw_begins_at_seven_eighths() -> None:
    """Growing random parts: a block is kept while it is below 7/8 of the page, never above."""
    lengths = []
    for part in range(3400, 3700):
        original = page(3, 4096, "raw")[:part] + bytes(4096 - part)
        block = lz4.block.compress(original, store_size=False)
        lengths.append(len(block))
        assert codec.encode(original) == (block if len(block) < 3584 else original)
    assert {3583, 3584} <= set(lengths), "both sides of the limit were among them"


@pytest.mark.parametrize("size", SIZES)
def test_no_lz4_block_is_as_short_as_a_word(size: int) -> None:
    """What the meaning of lengths 0 to 8 rests on."""
    # The most compressible page that is not same-filled, as lz4 sees it: a period of 1.
    shortest = len(lz4.block.compress(bytes(size), store_size=False))
    assert shortest > 2 * codec.WORD


@pytest.mark.parametrize("length", [1, 2, 7])
def test_impossible_lengths(length: int) -> None:
    with pytest.raises(CorruptPage, match=f"impossible length of {length} bytes"):
        codec.decode(bytes(length), length, 4096)
    with pytest.raises(CorruptPage, match="impossible length of 4097 bytes"):
        codec.decode(bytes(4097), 4097, 4096)


def test_a_block_of_another_page_size() -> None:
    payload = codec.encode(page(1, 8192, "text"))
    with pytest.raises(CorruptPage, match="cannot be decompressed"):
        codec.decode(payload, len(payload), 4096)
    with pytest.raises(CorruptPage, match="has 8192 bytes instead of 16384"):
        codec.decode(payload, len(payload), 16384)
