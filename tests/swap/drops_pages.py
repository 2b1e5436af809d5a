"""A program that fills memory, drops all of it but some pages, and says which swap slots it has.

Run with the MiB to fill and the pages to keep; it prints a line after each step, the last one with
the slots of all its pages, and waits for one before the next.
"""

import itertools
import mmap
import random
import struct
import sys
from collections.abc import Iterator

PAGE = 4096
SWAPPED = 1 << 62  # in /proc/PID/pagemap, with the slot in bits 5 to 54


def main() -> None:
    size, keep = int(sys.argv[1]) << 20, int(sys.argv[2])
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    chooser = random.Random(1)
    block = chooser.randbytes(1 << 20)
    for at in range(0, size, len(block)):
        memory[at : at + len(block)] = block
    print("filled", flush=True)
    sys.stdin.readline()
    kept = [-1, *sorted(chooser.sample(range(size // PAGE), keep)), size // PAGE]
    for before, after in itertools.pairwise(kept):
        if after - before > 1:
            memory.madvise(mmap.MADV_DONTNEED, (before + 1) * PAGE, (after - before - 1) * PAGE)
    print("dropped", flush=True)
    sys.stdin.readline()
    print(*slots(), flush=True)
    sys.stdin.readline()


def slots() -> Iterator[int]:
    """The swap slots of this process, interpreter and all."""
    with open("/proc/self/maps") as maps, open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
        for line in maps:
            start, end = (int(text, 16) for text in line.split()[0].split("-"))
            if start >= 1 << 63:  # the kernel's own
                continue
            pagemap.seek(start // PAGE * 8)
            for (entry,) in struct.iter_unpack("Q", pagemap.read((end - start) // PAGE * 8)):
                if entry & SWAPPED:
                    yield entry >> 5 & (1 << 50) - 1


if __name__ == "__main__":
    main()
