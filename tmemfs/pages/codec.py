"""A page as it is stored: nothing, one word, lz4, or itself.

The length of a payload says what it is, so that no page needs a tag:

==================  ==========================================================
length              the page is
==================  ==========================================================
0                   all zeros
8                   that 8-byte word, repeated
page size           the payload itself: lz4 did not take an eighth off it
anything between    an lz4 block
==================  ==========================================================

lz4 cannot produce the first two: its shortest block for 4 KiB is 24 bytes, because a length of
4 KiB alone takes sixteen bytes to write down.
"""

import lz4.block

from tmemfs.errors import CorruptPage

WORD = 8
_ZERO_WORD = bytes(WORD)

_compress = lz4.block.compress
_decompress = lz4.block.decompress


def encode(page: bytes) -> bytes:
    """Return the payload that stands for *page* (a power of two of bytes, 4 to 64 KiB)."""
    size = len(page)
    word = page[:WORD]
    # Two words tell most pages apart; only then is the whole page looked at.
    if word == page[-WORD:] and page == word * (size // WORD):
        return b"" if word == _ZERO_WORD else word
    payload: bytes = _compress(page, store_size=False)
    return payload if len(payload) < size - size // 8 else page


def encode_run(data: bytes, page_size: int) -> list[bytes]:
    """Return the payloads of the pages that *data* is."""
    return [encode(data[start : start + page_size]) for start in range(0, len(data), page_size)]


def decode(payload: bytes | memoryview, size: int, page_size: int) -> bytes:
    """Return the page of *page_size* bytes that a *payload* of *size* bytes stands for.

    Raises `CorruptPage` where the payload is no page of that size: wrong bytes never come back
    from a block that lz4 can tell is damaged.
    """
    if len(payload) != size:
        raise CorruptPage(f"stored page has {len(payload)} bytes instead of the {size} noted")
    if WORD < size < page_size:
        try:
            page: bytes = _decompress(payload, page_size)
        except lz4.block.LZ4BlockError as error:
            raise CorruptPage(f"stored page cannot be decompressed: {error}") from error
        if len(page) != page_size:
            raise CorruptPage(f"stored page has {len(page)} bytes instead of {page_size}")
        return page
    if size == page_size:
        return bytes(payload)
    if size == 0:
        return bytes(page_size)
    if size == WORD:
        return bytes(payload) * (page_size // WORD)
    raise CorruptPage(f"stored page has an impossible length of {size} bytes")
