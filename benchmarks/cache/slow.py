"""What a slow directory is to the benchmark."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Slow:
    """The directory, and how many requests it has had so far."""

    path: Path
    requests: Callable[[], int]


@dataclass(frozen=True)
class Kind:
    """A way to be slow, which is explained by *says*; *requests* names those that are counted.

    `lacking` tells why it cannot be had here, None where it can. `store` makes, below an empty
    directory, one in which the files are to be put; `directory` shows them, by means of another
    empty directory, as the slow one, of which nothing is cached yet but by the kernel.
    """

    says: str
    requests: str
    lacking: Callable[[], str | None]
    store: Callable[[Path], AbstractContextManager[Path]]
    directory: Callable[[Path, Path], AbstractContextManager[Slow]]
    steady: bool = True
    """Whether every request takes as long, so that a promise can be held against the figures."""
