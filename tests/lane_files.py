"""What is in the files of the lane's tests, and how they are read past the kernel."""

import copy
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mounting import Mounted, wait_for
from page_data import page

PAGE = 4096
PAGES = 256
SIZE = PAGES * PAGE


def content(seed: int, pages: int = PAGES) -> bytes:
    """Pages of all kinds, by turns; another seed gives others."""
    kinds = ("text", "raw", "zero", "word")
    return b"".join(page(seed + i, PAGE, kinds[i % 4]) for i in range(pages))


class Direct:
    """A file read past the kernel's pages, so that each read is a request."""

    def __init__(self, path: Path, flags: int = os.O_RDONLY) -> None:
        self.fd = os.open(path, flags | os.O_DIRECT)
        self.memory = mmap.mmap(-1, 1 << 20)

    def read(self, offset: int, size: int) -> bytes:
        with memoryview(self.memory)[:size] as room:
            return bytes(self.memory[: os.preadv(self.fd, [room], offset)])

    def write(self, offset: int, data: bytes) -> None:
        self.memory[: len(data)] = data
        with memoryview(self.memory)[: len(data)] as part:
            assert os.pwritev(self.fd, [part], offset) == len(data)

    def again(self) -> "Direct":
        """The same open file, with memory of its own: for another thread."""
        other = copy.copy(self)
        other.fd, other.memory = os.dup(self.fd), mmap.mmap(-1, 1 << 20)
        return other

    def close(self) -> None:
        with suppress(OSError):  # the mount may have gone
            os.close(self.fd)


@contextmanager
def direct(path: Path, flags: int = os.O_RDONLY) -> Iterator[Direct]:
    file = Direct(path, flags)
    try:
        yield file
    finally:
        file.close()


def lane(mount: Mounted) -> dict[str, Any]:
    return dict(mount.status()["lane"])


def until_answered(mount: Mounted, read: Callable[[], object], requests: int = 8) -> None:
    """Read until the lane has answered so many requests more."""
    before = lane(mount)["answered"]

    def answered() -> bool:
        read()
        return bool(lane(mount)["answered"] >= before + requests)

    wait_for("the lane answers", answered)
