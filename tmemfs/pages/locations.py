"""Where a page is: one integer, which the index keeps and the log understands.

A location is (start in the arena << SIZE_BITS) | length of the payload; pages have up to 64 KiB, so
that a length takes 17 bits and 2^46 bytes of arena can be addressed. 0 is no page.
"""

SIZE_BITS = 17
SIZE_MASK = (1 << SIZE_BITS) - 1

# A length that no payload has: the page is not in the arena but outside, in an overflow file, and
# in the place of a start there is its checksum.
OUTSIDE = SIZE_MASK


def overflowed(checksum: int) -> int:
    """Return the location of a page of that *checksum* (of up to 47 bits) in an overflow file."""
    return checksum << SIZE_BITS | OUTSIDE


def is_overflowed(location: int) -> bool:
    """Say whether the page at *location* is in an overflow file."""
    return location & SIZE_MASK == OUTSIDE
