"""Random operations on a few files of a directory, every byte of which is known beforehand.

As a program: ``python tests/fsx.py --seed 5 --ops 10000 DIRECTORY``. The same seed does the same
operations. It stops at the first byte, size or error that is not as it should be, says what it
was and which operations came before, and ends with exit code 1.
"""

import argparse
import errno
import mmap
import os
import random
import sys
import time
from collections import deque
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tmemfs.linux.syscalls import FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE, fallocate

FILES = 8
MOST = 1_500_000
"""no file grows larger than this"""
REMEMBERED = 40


class Wrong(Exception):
    """What was found is not what was written."""


class KnownFile:
    """A file, what is in it, one descriptor of it, and perhaps a mapping of all that it has."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content = bytearray()
        self.view: mmap.mmap | None = None
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)

    def open(self) -> None:
        self.close()
        self.fd = os.open(self.path, os.O_RDWR)

    def close(self) -> None:
        self.unmap()
        os.close(self.fd)

    def map(self) -> mmap.mmap:
        """The mapping, of `content` as long as it is now."""
        if self.view is None or len(self.view) != len(self.content):
            self.unmap()
            self.view = mmap.mmap(self.fd, len(self.content))
        return self.view

    def unmap(self) -> None:
        """Give the mapping up: what was written through it stays written."""
        if self.view is not None:
            self.view.close()
            self.view = None

    def resize(self, size: int) -> None:
        """What a change of the file's size does to what is in it."""
        if size < len(self.content):
            del self.content[size:]
        else:
            self.content.extend(bytes(size - len(self.content)))


class Fsx:
    """Random operations in the directory *place*, told from *seed*.

    *behind* is the same directory as it is behind a mount: what was synced must be there.
    Without *mappings* nothing is mapped.
    """

    def __init__(
        self, place: Path, seed: int, *, behind: Path | None = None, mappings: bool = True
    ) -> None:
        self._random = random.Random(seed)
        self._place = place
        self._behind = behind
        self._mappings = mappings
        self._noise = self._random.randbytes(1 << 18)
        self._last: deque[str] = deque(maxlen=REMEMBERED)
        self._files = [KnownFile(place / f"fsx{number}") for number in range(FILES)]
        self.done = 0
        steps = {
            self._read: 8,
            self._write: 6,
            self._append: 2,
            self._truncate: 2,
            self._punch: 2,
            self._zero: 1,
            self._allocate: 1,
            self._sync: 2,
            self._drop: 2,
            self._reopen: 1,
            self._replace: 1,
            self._copy: 1,
            self._check: 1,
        }
        if mappings:
            steps |= {self._map_read: 5, self._map_write: 5, self._map_sync: 2, self._unmap: 1}
        self._steps = [step for step, weight in steps.items() for _ in range(weight)]

    def run(self, operations: int, until: float = float("inf")) -> None:
        """Do so many operations, fewer if time.monotonic() passes *until*. Raises Wrong."""
        try:
            for _ in range(operations):
                if time.monotonic() > until:
                    break
                file = self._random.choice(self._files)
                self._random.choice(self._steps)(file)
                self.done += 1
            for file in self._files:
                self._sync(file)
                self._check(file)
        except (Wrong, OSError, ValueError) as error:
            history = "\n".join(self._last)
            raise Wrong(f"{error!r} at operation {self.done}, after\n{history}") from error

    def close(self) -> None:
        """Remove the files."""
        for file in self._files:
            file.close()
            file.path.unlink(missing_ok=True)

    # -- what to do it to --------------------------------------------------------------------

    def _note(self, file: KnownFile, what: str, *numbers: int) -> None:
        words = [file.path.name, what, *map(str, numbers), f"(of {len(file.content)})"]
        self._last.append(" ".join(words))

    def _range(self, size: int) -> tuple[int, int]:
        """Some start and end below *size*: often small, often at the edge of a page."""
        start = self._random.randrange(size + 1)
        if self._random.random() < 0.3:
            start -= start % 4096
        length = self._random.choice((1, 100, 4096, 8192, 30_000, 200_000))
        return start, min(start + self._random.randrange(1, length + 1), size)

    def _bytes(self, size: int) -> bytes:
        """Noise and what shrinks, in parts."""
        start = self._random.randrange(len(self._noise))
        noisy = self._random.choice((size, size // 2, size // 8))
        data = self._noise[start : start + noisy]
        return data + b"%d again " % start * ((size - len(data)) // 8 + 1)

    # -- what is done ------------------------------------------------------------------------

    def _expect(self, file: KnownFile, found: bytes, start: int, end: int, where: str) -> None:
        want = file.content[start:end]
        if found == want:
            return
        at = next((i for i, (a, b) in enumerate(zip(found, want, strict=False)) if a != b), -1)
        raise Wrong(
            f"{file.path.name} {where} from {start}: {len(found)} bytes for {len(want)}, "
            f"the first that differs is {start + at if at >= 0 else 'none'}"
        )

    def _read(self, file: KnownFile) -> None:
        start, end = self._range(MOST)
        self._note(file, "read", start, end)
        self._expect(file, os.pread(file.fd, end - start, start), start, end, "read")

    def _write(self, file: KnownFile) -> None:
        start, end = self._range(MOST)
        self._note(file, "write", start, end)
        self._put(file, start, self._bytes(end - start)[: end - start])

    def _append(self, file: KnownFile) -> None:
        start = len(file.content)
        data = self._bytes(self._random.randrange(1, 20_000))[: MOST - start]
        self._note(file, "append", start, start + len(data))
        fd = os.open(file.path, os.O_WRONLY | os.O_APPEND)
        try:
            if os.write(fd, data) != len(data):
                raise Wrong("a short write")
        finally:
            os.close(fd)
        file.content += data

    def _put(self, file: KnownFile, start: int, data: bytes) -> None:
        if os.pwrite(file.fd, data, start) != len(data):
            raise Wrong("a short write")
        if data:
            file.resize(max(len(file.content), start))
            file.content[start : start + len(data)] = data

    def _truncate(self, file: KnownFile) -> None:
        size = self._random.choice((0, self._random.randrange(MOST), self._range(MOST)[0]))
        self._note(file, "truncate", size)
        if size < len(file.content):
            file.unmap()
        if self._random.random() < 0.5:
            os.ftruncate(file.fd, size)
        else:
            os.truncate(file.path, size)
        file.resize(size)

    def _punch(self, file: KnownFile) -> None:
        self._blank(file, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, "punch")

    def _zero(self, file: KnownFile) -> None:
        self._blank(file, FALLOC_ZERO_RANGE, "zero")

    def _allocate(self, file: KnownFile) -> None:
        self._blank(file, 0, "allocate")

    def _blank(self, file: KnownFile, mode: int, what: str) -> None:
        start, end = self._range(MOST)
        if start == end:
            return
        self._note(file, what, start, end)
        try:
            fallocate(file.fd, mode, start, end - start)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            return  # by what is behind the mount
        if not mode & FALLOC_KEEP_SIZE:
            file.resize(max(len(file.content), end))
        if mode:
            end = min(end, len(file.content))
            file.content[start:end] = bytes(max(end - start, 0))

    def _sync(self, file: KnownFile) -> None:
        self._note(file, "sync")
        if file.view is not None:
            file.view.flush()
        os.fsync(file.fd)
        if self._behind is not None:
            data = (self._behind / file.path.name).read_bytes()
            self._expect(file, data, 0, MOST, "behind the mount")

    def _drop(self, file: KnownFile) -> None:
        self._note(file, "drop")
        file.unmap()
        os.fsync(file.fd)
        os.posix_fadvise(file.fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def _reopen(self, file: KnownFile) -> None:
        self._note(file, "reopen")
        file.open()

    def _replace(self, file: KnownFile) -> None:
        """Another file takes the name, as editors save; the old one stays right while open."""
        self._note(file, "replace")
        new = KnownFile(self._place / "fsx.new")
        data = self._bytes(size := self._random.randrange(1, MOST // 2))[:size]
        self._put(new, 0, data)
        os.rename(new.path, file.path)
        new.path = file.path
        self._expect(file, os.pread(file.fd, MOST, 0), 0, MOST, "replaced but open")
        file.close()
        self._files[self._files.index(file)] = new

    def _copy(self, file: KnownFile) -> None:
        """From one of the files into another, in the kernel."""
        source = self._random.choice(self._files)
        start, end = self._range(len(source.content))
        to = self._range(MOST - (end - start))[0]
        if source is file or start == end:
            return
        self._note(file, f"copy from {source.path.name}", start, end, to)
        while start < end:
            size = os.copy_file_range(source.fd, file.fd, end - start, start, to)
            if not size:
                raise Wrong("nothing copied")
            file.resize(max(len(file.content), to))
            file.content[to : to + size] = source.content[start : start + size]
            start, to = start + size, to + size

    def _check(self, file: KnownFile) -> None:
        """All of it, by its name."""
        self._note(file, "check")
        self._expect(file, file.path.read_bytes(), 0, MOST, "by name")
        for size in (os.fstat(file.fd).st_size, os.stat(file.path).st_size):
            if size != len(file.content):
                raise Wrong(f"{file.path.name} has {size} bytes, not {len(file.content)}")

    def _map_read(self, file: KnownFile) -> None:
        if file.content:
            start, end = self._range(len(file.content))
            self._note(file, "map read", start, end)
            self._expect(file, file.map()[start:end], start, end, "mapped")

    def _map_write(self, file: KnownFile) -> None:
        if file.content:
            start, end = self._range(len(file.content))
            self._note(file, "map write", start, end)
            data = self._bytes(end - start)[: end - start]
            file.map()[start:end] = file.content[start:end] = data

    def _map_sync(self, file: KnownFile) -> None:
        if file.view is not None:
            self._note(file, "map sync")
            file.view.flush()

    def _unmap(self, file: KnownFile) -> None:
        self._note(file, "unmap")
        file.unmap()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("directory", type=Path, metavar="DIRECTORY", help="where the files are")
    parser.add_argument("--seed", type=int, help="what to do; default: another every time")
    parser.add_argument(
        "--ops", type=int, default=10_000, help="how much of it; default %(default)s"
    )
    parser.add_argument("--behind", type=Path, help="the same directory behind the mount")
    parser.add_argument("--no-mmap", action="store_true", help="map no file")
    arguments = parser.parse_args()
    for directory in (arguments.directory, arguments.behind):
        if directory is not None and not directory.is_dir():
            parser.error(f"{directory}: not a directory")
    seed = random.randrange(1 << 32) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    fsx = Fsx(arguments.directory, seed, behind=arguments.behind, mappings=not arguments.no_mmap)
    try:
        fsx.run(arguments.ops)
    except Wrong as error:
        print(error, file=sys.stderr)
        return 1
    fsx.close()
    print(f"{fsx.done} operations, nothing wrong")
    return 0


if __name__ == "__main__":
    sys.exit(main())
