"""Reads files of a directory; tells how long it took and what was in them."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

CHUNK = 1 << 20


@dataclass
class Reading:
    """One pass over a set of files: the time in open, read and close, and a digest of each."""

    seconds: float = 0.0
    size: int = 0
    digests: dict[Path, bytes] = field(default_factory=dict)

    def __str__(self) -> str:
        mib = self.size / (1 << 20)
        rate = mib / self.seconds if self.seconds else 0.0
        return f"{self.seconds:6.2f} s  {rate:5.0f} MiB/s"


def files_below(top: Path, count: int | None, size: int | None) -> list[Path]:
    """The regular files below *top* that can be read, as paths relative to it, in order.

    No more than *count* of them and *size* bytes together, where these are given.
    """
    found: list[Path] = []
    total = 0
    for path, file_size in _walk(top):
        total += file_size
        if (count is not None and len(found) == count) or (size is not None and total > size):
            break
        found.append(path)
    return found


def _walk(top: Path) -> Iterator[tuple[Path, int]]:
    for place, directories, names in os.walk(top):
        directories.sort()
        for name in sorted(names):
            path = Path(place, name)
            # Not what a link points to, and nothing that waits for ever, like a FIFO.
            if path.is_file() and not path.is_symlink() and os.access(path, os.R_OK):
                yield path.relative_to(top), path.stat().st_size


def _nobody(_: int) -> None:
    """Nobody is told how far it is."""


def read_all(top: Path, files: Iterable[Path], advance: Callable[[int], None] = _nobody) -> Reading:
    """Read *files* below *top* once, from first byte to last; tells *advance* of bytes read."""
    reading = Reading()
    for file in files:
        digest = blake2b(digest_size=16)
        start = time.perf_counter()
        with open(top / file, "rb", buffering=0) as opened:
            while chunk := opened.read(CHUNK):
                reading.size += len(chunk)
                # The time that hashing takes is not the filesystem's.
                reading.seconds += time.perf_counter() - start
                digest.update(chunk)
                advance(len(chunk))
                start = time.perf_counter()
        reading.seconds += time.perf_counter() - start
        reading.digests[file] = digest.digest()
    return reading


def read_pieces(
    top: Path,
    file: Path,
    offsets: Sequence[int],
    piece: int,
    advance: Callable[[int], None] = _nobody,
) -> Reading:
    """Read *piece* bytes of one file at each of *offsets*, in that order."""
    reading, digest = Reading(), blake2b(digest_size=16)
    start = time.perf_counter()
    with open(top / file, "rb", buffering=0) as opened:
        for offset in offsets:
            found = os.pread(opened.fileno(), piece, offset)
            reading.size += len(found)
            # The time that hashing takes is not the filesystem's.
            reading.seconds += time.perf_counter() - start
            digest.update(found)
            advance(len(found))
            start = time.perf_counter()
    reading.seconds += time.perf_counter() - start
    reading.digests[file] = digest.digest()
    return reading


def forget(tops: Iterable[Path], files: Iterable[Path]) -> str:
    """Make the kernel drop what it caches of *files* below each of *tops*; says how it was done.

    Everything at once where that is permitted; else the pages of each file, which their reader
    may ask for, while names and attributes stay.
    """
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        for path in (top / file for top in tops for file in files):
            with open(path, "rb") as opened:
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return "file by file with posix_fadvise, as dropping all of them needs root"
    return "with /proc/sys/vm/drop_caches"
