"""What a budget holds at least, whatever is in the pages: what a swap volume may promise."""

from __future__ import annotations

from tmemfs.config import TABLES_PER_PAGE
from tmemfs.pages.log import BYTES_PER_ROW, ROW_BYTES, SEGMENT_OVERHEAD
from tmemfs.tmem.core import segment_size
from tmemfs.tmem.reclaim import CLEANING_GAIN, RESERVE_SEGMENTS


def incompressible(budget: int, page_size: int = 4096) -> int:
    """How many bytes of persistent pages a budget in bytes holds when none of them compresses.

    However they are written, over and over, in any order: a segment may then have as much dead
    space as is not worth cleaning. In most orders it holds some hundredths more.
    """
    size = segment_size(budget)
    dense = size - size // CLEANING_GAIN - page_size
    pages = dense // (page_size + BYTES_PER_ROW)
    taken = size + SEGMENT_OVERHEAD + pages * (ROW_BYTES + TABLES_PER_PAGE)
    # One more than is held back: the head, which is never full.
    left = budget - (RESERVE_SEGMENTS + 1) * size
    return max(left, 0) // taken * pages * page_size
