"""The ways to look at a slow directory, each mounted for as long as its context lasts.

Each one is new and has nothing cached yet; all have the options that they come with, apart from
those that say what they are to be.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from benchmarks import servers
from tmemfs.config import DEFAULT_PAGE_SIZE

BARE = "bare"
TMEMFS = "tmemfs"
BINDFS = "bindfs"
RCLONE = "rclone"
BUDGET = 512 << 20


@dataclass(frozen=True)
class Layer:
    """One way: *over* shows a directory, the first path, by means of an empty one, the second."""

    name: str
    over: Callable[[Path, Path], AbstractContextManager[Path]]
    programs: tuple[str, ...] = ()

    def lacking(self) -> str | None:
        """Why it cannot be had here; None where it can."""
        return servers.lacking(*self.programs)


def _bare(directory: Path, _: Path) -> AbstractContextManager[Path]:
    return nullcontext(directory)


def _tmemfs(directory: Path, place: Path) -> AbstractContextManager[Path]:
    """It keeps what it read in its memory."""
    return servers.tmemfs(directory, place / "mount", budget=BUDGET, page_size=DEFAULT_PAGE_SIZE)


@contextmanager
def _bindfs(directory: Path, place: Path) -> Iterator[Path]:
    """It keeps nothing: what a second filesystem on top costs by itself."""
    mountpoint = place / "mount"
    with servers.mounted(["bindfs", "-f", str(directory), str(mountpoint)], mountpoint):
        yield mountpoint


@contextmanager
def _rclone(directory: Path, place: Path) -> Iterator[Path]:
    """It keeps what it read in files on the disk, and takes names to stay for five minutes."""
    mountpoint = place / "mount"
    options = ["--config=", "--vfs-cache-mode=full", f"--cache-dir={place / 'cache'}"]
    command = ["rclone", "mount", str(directory), str(mountpoint), *options]
    with servers.mounted(command, mountpoint):
        yield mountpoint


LAYERS = {
    layer.name: layer
    for layer in (
        Layer(BARE, _bare),
        Layer(TMEMFS, _tmemfs),
        Layer(BINDFS, _bindfs, ("bindfs",)),
        Layer(RCLONE, _rclone, ("rclone",)),
    )
}
