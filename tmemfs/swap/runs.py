"""Runs of adjacent pages: what is read or written in one go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def runs(indices: Sequence[int], most: int | None = None) -> Iterator[tuple[int, int]]:
    """Yield (place, count) of each run in *indices*, which ascend; none longer than *most*."""
    start = 0
    for place in range(1, len(indices) + 1):
        ends = place == len(indices) or indices[place] != indices[place - 1] + 1
        if ends or place - start == most:
            yield start, place - start
            start = place
