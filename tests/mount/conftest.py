"""A place for the tests of the real command."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Place, new_place


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with new_place(tmp_path) as place:
        yield place
