"""A program that fills memory, drops all of it but some pages, and says which swap slots it has.

Run with the MiB to fill and the pages to keep; it waits for a line before each step, and prints one
after it, the last one with the slots.
"""

import ctypes
import itertools
import mmap
import random
import struct
import sys

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
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    with open("/proc/self/pagemap", "rb") as file:
        file.seek(start // PAGE * 8)
        entries = [entry for (entry,) in struct.iter_unpack("Q", file.read(size // PAGE * 8))]
    print(*(entry >> 5 & (1 << 50) - 1 for entry in entries if entry & SWAPPED), flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main()
