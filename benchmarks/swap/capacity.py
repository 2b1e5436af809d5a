"""How many bytes of real pages each kind of swap holds in a byte of memory."""

import mmap
import os
import struct
from dataclasses import dataclass
from typing import Any

from benchmarks.swap.peers import TMEMFS, ZRAM_LZ4, Device
from benchmarks.swap.program import PAGE

# As a process that swaps gives them: one after the other, in requests of some pages.
REQUEST = 32 * PAGE
STAMP = struct.Struct("<4Q")
TARGET = 1.0


@dataclass(frozen=True)
class Capacity:
    """What *name* took in memory for *written* bytes."""

    name: str
    written: int
    memory: int

    @property
    def ratio(self) -> float:
        """Bytes held in a byte of memory."""
        return self.written / self.memory

    def as_dict(self) -> dict[str, Any]:
        return {"device": self.name, "written": self.written, "memory": self.memory}


def measure(name: str, device: Device, corpus: bytes, pages: int) -> Capacity | None:
    """Fill *device* with *pages* pages such as the program has, and see what that takes.

    Raises OSError where they do not read back as they were. None where nothing is in memory.
    """
    if device.memory is None:
        return None
    before = device.memory()
    file = os.open(device.path, os.O_RDWR | os.O_DIRECT)
    try:
        # O_DIRECT needs memory that begins with a page.
        with mmap.mmap(-1, REQUEST) as request:
            for at in range(0, pages * PAGE, REQUEST):
                request[:] = _pages(corpus, at)
                os.pwrite(file, request, at)
            taken = device.memory() - before
            for at in range(0, pages * PAGE, 16 * REQUEST):
                os.preadv(file, [request], at)
                if request[:] != _pages(corpus, at):
                    raise OSError(f"{name}: wrong pages at byte {at}")
    finally:
        os.close(file)
    return Capacity(name, pages * PAGE, taken)


def _pages(corpus: bytes, at: int) -> bytes:
    """The pages at byte *at*: real ones, each with its number at its head."""
    found = []
    for page in range(at // PAGE, (at + REQUEST) // PAGE):
        start = page * PAGE % len(corpus)
        stamp = STAMP.pack(page, 0, 0, ~page & (1 << 64) - 1)
        found.append(stamp + corpus[start + STAMP.size : start + PAGE])
    return b"".join(found)


def rows(found: list[Capacity]) -> list[tuple[str, ...]]:
    """A table of what was found: the ratios beside that of zram where it was measured."""
    zram = next((capacity.ratio for capacity in found if capacity.name == ZRAM_LZ4), None)
    headings = ("device", "MiB written", "MiB of memory", "held a byte", "beside zram", "target")
    table: list[tuple[str, ...]] = [headings]
    for capacity in found:
        beside = capacity.ratio / zram if zram else None
        met = ""
        if beside and capacity.name == TMEMFS:
            met = f">= {TARGET:.2f} {'met' if beside >= TARGET else 'MISSED'}"
        table.append(
            (
                capacity.name,
                f"{capacity.written / (1 << 20):.0f}",
                f"{capacity.memory / (1 << 20):.1f}",
                f"{capacity.ratio:.3f}",
                f"{beside:.3f}" if beside else "-",
                met,
            )
        )
    return table
