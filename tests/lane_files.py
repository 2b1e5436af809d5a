"""What is in the file that the tests of the lane read and write."""

from page_data import page

PAGE = 4096
PAGES = 256
SIZE = PAGES * PAGE


def content(seed: int, pages: int = PAGES) -> bytes:
    """Pages of all kinds, by turns; another seed gives others."""
    kinds = ("text", "raw", "zero", "word")
    return b"".join(page(seed + i, PAGE, kinds[i % 4]) for i in range(pages))
