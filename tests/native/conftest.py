"""A directory with one file, for the tests of the lane."""

from pathlib import Path

import pytest
from lane_files import content


@pytest.fixture
def source(tmp_path: Path) -> Path:
    made = tmp_path / "source"
    made.mkdir()
    (made / "file").write_bytes(content(1))
    return made
