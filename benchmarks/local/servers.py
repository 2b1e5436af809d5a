"""The three ways to the same local directory: itself, bindfs over it, and tmemfs over it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from benchmarks import servers

BARE, BINDFS, TMEMFS = "bare", "bindfs", "tmemfs"
BUDGET = 512 << 20
PAGE = 16 << 10

Way = Callable[[Path, Path], AbstractContextManager[Path]]
"""Makes a source directory reachable at a mount point; yields where."""


@contextmanager
def bare(source: Path, _: Path) -> Iterator[Path]:
    """The directory itself."""
    yield source


@contextmanager
def bindfs(source: Path, mountpoint: Path) -> Iterator[Path]:
    """bindfs with its own defaults, which are one thread for each request."""
    with servers.mounted(["bindfs", "-f", source, mountpoint], mountpoint):
        yield mountpoint


@contextmanager
def tmemfs(source: Path, mountpoint: Path) -> Iterator[Path]:
    """tmemfs with its own defaults."""
    with servers.tmemfs(source, mountpoint, budget=BUDGET, page_size=PAGE) as mount:
        yield mount


WAYS: dict[str, Way] = {BARE: bare, BINDFS: bindfs, TMEMFS: tmemfs}
