"""Traces: a text of one request a line, ``OBJECT INDEX`` or ``OBJECT INDEX COUNT``.

OBJECT is any word, INDEX a page of it, COUNT how many from there on; ``#`` begins a comment. What
``tmemfs mount -o trace=FILE`` writes is such a text.
"""

import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from tmemfs.config import DEFAULT_PAGE_SIZE
from tmemfs.tmem import INDEX_LIMIT, MAX_PAGE_SIZE, MIN_PAGE_SIZE

INDEX_BITS = 32
INDEX_MASK = INDEX_LIMIT - 1
MOST_REQUESTS = 100_000_000
"""A trace that asks for more pages is more likely a mistake; it would take a day."""

_PAGES = re.compile(r"pages of (\d+) bytes")


class BadTrace(ValueError):
    """A file that is no trace; says where and why."""


@dataclass(frozen=True)
class Trace:
    """The pages that were asked for, one after the other.

    A *key* is a page's object, a small number, and its index: ``object << INDEX_BITS | index``.
    """

    name: str
    keys: "array[int]" = field(repr=False)
    page_size: int = 4096
    about: str = ""
    """how it was made, in a few words: sizes, seed"""

    @property
    def distinct(self) -> int:
        """How many different pages it asks for: as many misses are nobody's fault."""
        return len(set(self.keys))


def read_trace(file: Path) -> Trace:
    """The trace in *file*. Raises BadTrace where it is none, OSError where it cannot be read."""
    keys: array[int] = array("Q")
    objects: dict[str, int] = {}
    page_size = DEFAULT_PAGE_SIZE
    # A word may be anything, such as the name of a file.
    with file.open(encoding="utf-8", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, 1):
            text, _, comment = line.partition("#")
            if (found := _PAGES.search(comment)) and not keys:
                page_size = int(found[1])
            if words := text.split():
                try:
                    word, index, count = _parsed(words)
                except ValueError as error:
                    raise BadTrace(f"{file}:{number}: {error}") from None
                if len(keys) + count > MOST_REQUESTS:
                    raise BadTrace(f"{file}:{number}: more than {MOST_REQUESTS} requests")
                first = objects.setdefault(word, len(objects)) << INDEX_BITS | index
                keys.extend(range(first, first + count))
    if not keys:
        raise BadTrace(f"{file}: no request in it")
    if page_size & (page_size - 1) or not MIN_PAGE_SIZE <= page_size <= MAX_PAGE_SIZE:
        raise BadTrace(f"{file}: pages of {page_size} bytes cannot be")
    return Trace(file.name, keys, page_size, "")


def write_trace(trace: Trace, file: Path) -> None:
    """Write *trace* as the text that `read_trace` reads."""
    with file.open("w", encoding="ascii") as text:
        text.write(f"# tmemfs trace, pages of {trace.page_size} bytes\n")
        if trace.about:
            text.write(f"# {trace.about}\n")
        for first, count in _runs(trace.keys):
            more = f" {count}" if count > 1 else ""
            text.write(f"{first >> INDEX_BITS} {first & INDEX_MASK}{more}\n")


def _parsed(words: list[str]) -> tuple[str, int, int]:
    if not 2 <= len(words) <= 3:
        raise ValueError(f"OBJECT INDEX [COUNT] expected, not {len(words)} words")
    for word in words[1:]:
        if not (word.isascii() and word.isdecimal()):
            raise ValueError(f"{word!r} is not a decimal number")
    index, count = int(words[1]), int(words[2]) if len(words) == 3 else 1
    if not count or index + count > INDEX_LIMIT:
        raise ValueError(f"{count} pages from {index} on cannot be (indices have 32 bits)")
    return words[0], index, count


def _runs(keys: "array[int]") -> Iterator[tuple[int, int]]:
    """(first, count) of each run of adjacent pages."""
    for _, run in groupby(enumerate(keys), lambda place: place[1] - place[0]):
        pages = [key for _, key in run]
        yield pages[0], len(pages)
