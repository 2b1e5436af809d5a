"""Real bytes of this machine to work on: shared libraries and Python sources, half and half."""

import fnmatch
import os
import sysconfig
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

LIBRARIES = Path("/usr/lib")
SOURCES = Path(sysconfig.get_path("stdlib"))


def corpus(size: int) -> bytes:
    """Exactly *size* bytes, in turns of up to 1 MiB of the one kind and of the other.

    The same on every call on one machine, as long as nothing is installed or removed.
    """
    kinds = [_contents(LIBRARIES, "*.so*"), _contents(SOURCES, "*.py")]
    parts: list[bytes] = []
    missing = size
    while missing and kinds:
        for kind in tuple(kinds):
            part = next(kind, b"")[:missing]
            if not part:
                kinds.remove(kind)
            parts.append(part)
            missing -= len(part)
    if missing:
        raise OSError(f"{LIBRARIES} and {SOURCES} together are {missing} bytes short of {size}")
    return b"".join(parts)


def source_files(count: int) -> list[Path]:
    """The first *count* Python sources of the standard library: small files."""
    return list(islice(sorted(SOURCES.rglob("*.py")), count))


def _contents(top: Path, pattern: str) -> Iterator[bytes]:
    """The files below *top*, one after the other, in pieces of 1 MiB (the last one is shorter)."""
    pending = b""
    for place, directories, names in os.walk(top):
        directories.sort()
        for path in (Path(place, name) for name in fnmatch.filter(sorted(names), pattern)):
            if path.is_symlink():
                continue
            pending += path.read_bytes()
            while len(pending) >= 1 << 20:
                yield pending[: 1 << 20]
                pending = pending[1 << 20 :]
    if pending:
        yield pending
