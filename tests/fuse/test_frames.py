"""Short paths: how many frames of Python a request enters that is answered from memory."""

from pathlib import Path

import pytest

from benchmarks import frames


@pytest.mark.parametrize("what", frames.MOST)
async def test_paths_are_short(tmp_path: Path, what: str) -> None:
    found = (await frames.short_paths(tmp_path))[what]
    assert len(found) <= frames.MOST[what], found
    if what == frames.HIT:
        assert found[-1] == "decode"  # it was a hit
