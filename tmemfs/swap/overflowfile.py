"""An overflow file: a slot on disk for every page of a swap volume, and threads for its I/O.

Everything that it will ever need is there before the first page comes: the file's blocks, the
buffers and the threads. What is used when memory has run out must not ask for any. I/O is direct,
past the kernel's page cache, which would be a second copy in just the memory that is missing.
"""

from __future__ import annotations

import errno
import logging
import mmap
import os
import signal
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, ParamSpec, TypeVar

import trio

from tmemfs.swap.runs import runs
from tmemfs.swap.slots import FIRST, SLOT, open_slots

log = logging.getLogger(__name__)

_READERS = 4
_BUFFER_SLOTS = 256
_LOGGED_ERRORS = 10

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(slots=True)
class OverflowCounters:
    """Pages that were written and read; errors are calls that failed and wrong checksums."""

    overflow_writes: int = 0
    overflow_reads: int = 0
    overflow_errors: int = 0


class OverflowFile:
    """*slots* slots of 4096 bytes in the file or block device *path*; see `slots.open_slots`."""

    def __init__(self, path: str, slots: int) -> None:
        self.path = path
        self.counters = OverflowCounters()
        self._fd = open_slots(path, slots)
        self._buffers = threading.local()
        # One writer, so that no write to a slot can pass another.
        self._writer = self._threads(1)
        self._readers = self._threads(_READERS)

    def close(self) -> None:
        """Wait for what is under way, and close the file. It stays, for the next time."""
        self._writer.shutdown()
        self._readers.shutdown()
        os.close(self._fd)

    async def write(self, pages: list[tuple[int, bytes]]) -> list[int | None]:
        """Write pages to their slots; return the checksum of each, None where that failed.

        *pages* are pairs of slot and page, in the order of slots. Adjacent ones go in one write.
        """
        checksums: list[int | None] = await _in_thread(self._writer, self._write, pages)
        self.counters.overflow_writes += len(checksums) - checksums.count(None)
        return checksums

    async def read(self, first: int, count: int) -> list[bytes]:
        """Return *count* slots from *first* on, whatever is in them. Raises OSError."""
        pages = await _in_thread(self._readers, self._read, first, count)
        self.counters.overflow_reads += count
        return pages

    def failed(self, what: str) -> None:
        """Count an error; log it, if it is one of the first."""
        self.counters.overflow_errors += 1
        if self.counters.overflow_errors <= _LOGGED_ERRORS:
            last = "" if self.counters.overflow_errors < _LOGGED_ERRORS else " (no more of these)"
            log.error("overflow file %s: %s%s", self.path, what, last)

    def statistics(self) -> dict[str, Any]:
        """Return the path and the counters."""
        return {"overflow": self.path, **asdict(self.counters)}

    # -- in threads --------------------------------------------------------------------------

    def _threads(self, count: int) -> ThreadPoolExecutor:
        everybody = threading.Barrier(count + 1)

        def begin() -> None:
            try:
                # Signals are for the thread that serves.
                signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
                # A mapping, because direct I/O wants its memory aligned; touched here and now.
                self._buffers.view = memoryview(mmap.mmap(-1, _BUFFER_SLOTS * SLOT))
                self._buffers.view[:] = bytes(_BUFFER_SLOTS * SLOT)
            except BaseException:
                everybody.abort()
                raise

        threads = ThreadPoolExecutor(count, "overflow", initializer=begin)
        for _ in range(count):
            threads.submit(everybody.wait)
        everybody.wait()
        return threads

    def _write(self, pages: list[tuple[int, bytes]]) -> list[int | None]:
        view = self._buffers.view
        checksums: list[int | None] = []
        for start, count in runs([slot for slot, _ in pages], _BUFFER_SLOTS):
            run, size = pages[start : start + count], count * SLOT
            first = run[0][0]
            for place, (_, page) in enumerate(run):
                view[place * SLOT : (place + 1) * SLOT] = page
            try:
                done = os.pwritev(self._fd, [view[:size]], FIRST + first * SLOT)
                if done != size:
                    raise OSError(errno.EIO, f"{done} of {size} bytes")
            except OSError as error:
                self.failed(f"slots {first} to {run[-1][0]} not written: {error.strerror}")
                checksums += [None] * len(run)
            else:
                checksums += [checksum(slot, page) for slot, page in run]
        return checksums

    def _read(self, first: int, count: int) -> list[bytes]:
        view = self._buffers.view
        pages: list[bytes] = []
        while len(pages) < count:
            slots = min(count - len(pages), _BUFFER_SLOTS)
            start = FIRST + (first + len(pages)) * SLOT
            done = os.preadv(self._fd, [view[: slots * SLOT]], start)
            if done != slots * SLOT:
                raise OSError(errno.EIO, f"{done} of {slots * SLOT} bytes")
            pages += [bytes(view[at : at + SLOT]) for at in range(0, done, SLOT)]
        return pages


def checksum(slot: int, page: bytes) -> int:
    """Return what tells that *page* is the one that was written to *slot*, an int of 32 bits."""
    return zlib.crc32(page, slot)


async def _in_thread(
    threads: ThreadPoolExecutor, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Wait for *call* in one of *threads*, even if the waiting is cancelled.

    Not trio's own threads: those are made when there are too few, and end when they are idle.
    """
    token = trio.lowlevel.current_trio_token()
    ended = trio.Event()
    future = threads.submit(call, *args, **kwargs)
    future.add_done_callback(lambda _: token.run_sync_soon(ended.set))
    with trio.CancelScope(shield=True):
        await ended.wait()
    return future.result()
