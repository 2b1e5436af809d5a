"""Real files of this machine to read: Python sources, and libraries put together to large files."""

import os
import random
import sysconfig
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

LIBRARIES = Path("/usr/lib")
SOURCES = Path(sysconfig.get_path("stdlib"))
LARGE = (Path("large-in-order"), Path("large-at-random"))
SMALL = Path("small")


def make_sample(place: Path, small: int, large_size: int) -> None:
    """Fill the empty directory *place*: *small* sources, and two files of *large_size* bytes.

    The large files have different contents. Raises OSError where the machine has too few bytes.
    """
    for number, file in enumerate(islice(sorted(SOURCES.rglob("*.py")), small)):
        # A few directories, as source trees have them.
        target = place / SMALL / f"part{number // 50}" / f"{number:03}-{file.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    chunks = _chunks()
    for name in LARGE:
        with open(place / name, "wb") as large:
            while (missing := large_size - large.tell()) > 0:
                chunk = next(chunks, b"")
                if not chunk:
                    raise OSError(f"{LIBRARIES} and {SOURCES} have too few bytes for a sample")
                large.write(chunk[:missing])


def random_offsets(size: int, count: int, piece: int) -> list[int]:
    """*count* different multiples of *piece* below *size* in random order, the same every time."""
    return random.Random(1).sample(range(0, size - piece + 1, piece), count)


def _chunks() -> Iterator[bytes]:
    """The contents of shared libraries, then of Python sources."""
    for top, suffix in ((LIBRARIES, ".so"), (SOURCES, ".py")):
        for place, directories, names in os.walk(top):
            directories.sort()
            for path in (Path(place, name) for name in sorted(names)):
                if suffix in path.suffixes and path.is_file() and not path.is_symlink():
                    yield path.read_bytes()
