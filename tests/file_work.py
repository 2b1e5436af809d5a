"""Processes that read and write files of a mount, and check every byte, until they are told to end.

Each stops at the first wrong byte, says what it is, and ends with exit code 1.
"""

import multiprocessing
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

MIB = 1 << 20
SECONDS = 120  # for the step that it is in when it is told to end
FORK = multiprocessing.get_context("fork")


class FileWork:
    """A process that does `step` again and again; `steps` is how often by now."""

    def __init__(self, place: Path, seed: int) -> None:
        self.place = place
        self.random = random.Random(seed)
        self._steps = FORK.Value("i", 0)
        self._stop = FORK.Event()
        self._process = FORK.Process(target=self._run)

    @property
    def steps(self) -> int:
        return self._steps.value

    def step(self) -> None:
        raise NotImplementedError

    def check(self) -> None:
        """Fail where it has found something wrong by now."""
        assert self._process.is_alive(), f"{type(self).__name__} has ended"

    @contextmanager
    def working(self) -> Iterator[None]:
        self._process.start()
        try:
            yield
            self.check()
            self._stop.set()
            self._process.join(SECONDS)
            assert self._process.exitcode == 0
            assert self.steps > 1
        finally:
            self._process.kill()
            self._process.join(SECONDS)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.step()
            self._steps.value += 1
            # So that there is something left of the machine for the others.
            self._stop.wait(0.02)


class Reader(FileWork):
    """Reads files that nobody changes: whole, or a part of one."""

    def __init__(self, place: Path, digests: dict[str, bytes], seed: int) -> None:
        super().__init__(place, seed)
        self._digests = digests

    def step(self) -> None:
        name = self.random.choice(list(self._digests))
        data = read_past_kernel(self.place / name)
        assert digest(data) == self._digests[name], f"{name} is wrong"
        for _ in range(8):
            start = self.random.randrange(len(data))
            size = self.random.randrange(1, 100_000)
            found = read_past_kernel(self.place / name, start, size)
            assert found == data[start : start + size], f"{name} is wrong at {start}"


class Writer(FileWork):
    """Replaces, rewrites, cuts and extends files of its own, and reads them back.

    Through the mount, where the kernel does not remember them, and behind it.
    """

    FILES = 12
    SIZE = 300_000

    def __init__(self, place: Path, source: Path, seed: int) -> None:
        super().__init__(place, seed)
        self._source = source
        self._noise = self.random.randbytes(2 * self.SIZE)
        self._contents = {f"written{number}": bytearray() for number in range(self.FILES)}
        for name in self._contents:
            (place / name).touch()

    def step(self) -> None:
        name = self.random.choice(list(self._contents))
        self.random.choice((self._replace, self._rewrite, self._rewrite, self._cut))(name)
        for other in (name, self.random.choice(list(self._contents))):
            for top in (self.place, self._source):
                found = read_past_kernel(top / other)
                assert found == self._contents[other], f"{top / other} is wrong"

    def _bytes(self) -> bytes:
        """Noise, of which some part may be words that come again."""
        size = self.random.randrange(1, self.SIZE)
        start = self.random.randrange(self.SIZE)
        noisy = self.random.randrange(size)
        return self._noise[start : start + noisy] + b"again " * ((size - noisy) // 6)

    def _replace(self, name: str) -> None:
        new = self.place / "new"
        self._contents[name] = bytearray(self._bytes())
        new.write_bytes(self._contents[name])
        new.rename(self.place / name)

    def _rewrite(self, name: str) -> None:
        content, data = self._contents[name], self._bytes()
        start = self.random.randrange(len(content) + 1)
        content[start : start + len(data)] = data
        with open(self.place / name, "r+b") as file:
            file.seek(start)
            file.write(data)

    def _cut(self, name: str) -> None:
        content, size = self._contents[name], self.random.randrange(self.SIZE)
        content[:] = content[:size].ljust(size, b"\0")
        os.truncate(self.place / name, size)


def make_files(place: Path, size: int) -> dict[str, bytes]:
    """Make files of some sizes in `place`, `size` bytes that do not compress; their digests."""
    source = random.Random(size)
    digests = {}
    while size > 0:
        data = source.randbytes(min(source.randrange(1, 2 * MIB), size))
        size -= len(data)
        name = f"read{len(digests)}"
        (place / name).write_bytes(data)
        digests[name] = digest(data)
    return digests


def read_past_kernel(path: Path, start: int = 0, size: int | None = None) -> bytes:
    """Read (a part of) a file as the mount has it, not as the kernel remembers it."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(start)
        return file.read(size)


def digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()
