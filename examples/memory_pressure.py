"""A program that needs more memory than it has, and knows every byte of it.

It fills pages that compress about two to one and are all different, then checks each of them:
in order, then at random while it rewrites them. Run it under a memory limit on a machine with
swap, and it proves that the swap device gives back what it was given:

    python memory_pressure.py --mib 256

Exit code 1, and a line for each, when a page was not what had been written there.
"""

import argparse
import ctypes
import mmap
import random
import sys
import time
from array import array
from collections.abc import Sequence

PAGE = 4096


class Pages:
    """*count* pages of memory whose contents can be told from a seed, page by page.

    A page is its number and version, then a stretch of one block of bytes that begins where
    their hash says: cheap to compute, different everywhere, and never like its neighbour.
    """

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self._seed = seed
        # Private: shared memory is swapped too, but it is not what programs have most of.
        self._memory = mmap.mmap(-1, count * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._versions = array("I", bytes(4 * count))
        self._block = _half_compressible(1 << 18, seed)

    def expected(self, page: int) -> bytes:
        version = self._versions[page]
        head = b"page %d version %d seed %d\n" % (page, version, self._seed)
        start = hash((page, version, self._seed)) % (len(self._block) - PAGE)
        return head + self._block[start : start + PAGE - len(head)]

    def write(self, page: int) -> None:
        """Put the next version of *page* in place."""
        self._versions[page] += 1
        self._memory[page * PAGE : (page + 1) * PAGE] = self.expected(page)

    def wrong(self, page: int) -> str | None:
        """None where *page* is as written, else what is there instead."""
        found = self._memory[page * PAGE : (page + 1) * PAGE]
        if found == self.expected(page):
            return None
        return f"page {page}, version {self._versions[page]}: found {found[:48]!r}..."


def _half_compressible(size: int, seed: int) -> bytes:
    """Bytes that lz4 shrinks to about half: noise, and words that come again, by turns."""
    source = random.Random(seed)
    words = [source.randbytes(64) for _ in range(8)]
    return b"".join(source.randbytes(32) + source.choice(words) for _ in range(size // 96))


def stay_in_memory() -> bool:
    """Lock what is mapped by now, the program itself. False where that is not permitted.

    Not to be called after the pages were mapped: the pressure is to be on them.
    """
    lock_current, lock_as_touched = 1, 4
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.mlockall(lock_current | lock_as_touched) == 0)


class Report:
    """Runs the steps; prints what each took as it ends, and keeps count of the wrong pages."""

    def __init__(self) -> None:
        self.wrong = 0

    def step(
        self, name: str, pages: Pages, order: Sequence[int], *, check: bool, write: bool
    ) -> None:
        """Go through the pages of *order*: check each, or write it, or the one, then the other."""
        start, wrong = time.monotonic(), 0
        for page in order:
            if check and (fault := pages.wrong(page)):
                print(fault, file=sys.stderr)
                wrong += 1
            if write:
                pages.write(page)
        self.wrong += wrong
        seconds = time.monotonic() - start
        # Flushed: who started this may want to look at the swap device now.
        print(f"{name}: {len(order)} pages, {wrong} wrong, {seconds:.2f} s", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    parser = argparse.ArgumentParser(description="Fill memory, and check every page of it.")
    parser.add_argument("--mib", type=int, default=256, help="MiB to fill (256)")
    parser.add_argument("--accesses", type=int, help="random accesses (as many as pages)")
    parser.add_argument("--seed", type=int, default=1, help="other seeds make other pages (1)")
    options = parser.parse_args(argv)

    stay_in_memory()
    pages = Pages((options.mib << 20) // PAGE, options.seed)
    in_order = range(pages.count)
    chooser = random.Random(options.seed)
    accesses = pages.count if options.accesses is None else options.accesses
    at_random = array("I", (chooser.randrange(pages.count) for _ in range(accesses)))

    report = Report()
    report.step("filled", pages, in_order, check=False, write=True)
    report.step("read in order", pages, in_order, check=True, write=False)
    report.step("read and rewritten at random", pages, at_random, check=True, write=True)
    report.step("read in order again", pages, in_order, check=True, write=False)
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
