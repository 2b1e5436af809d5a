"""A cache volume over a temporary directory."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rig import Rig


@pytest.fixture
def new_rig(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    """Makes volumes of the directory `source` in the test's own."""
    (tmp_path / "source").mkdir()
    made: list[Rig] = []

    def make(**options: object) -> Rig:
        made.append(Rig(tmp_path / "source", **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for rig in made:
        rig.close()


@pytest.fixture
def rig(new_rig: Callable[..., Rig]) -> Rig:
    return new_rig()
