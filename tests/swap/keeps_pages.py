"""A program that fills memory, and checks every byte of it each time that it is told to.

    python keeps_pages.py MIB [NAME]

Its pages begin with NAME. It says `filled`, and for each line on its standard input how many pages
are wrong.
"""

import mmap
import random
import sys

from memory_pressure import PAGE, stay_in_memory


def main() -> None:
    stay_in_memory()
    count = (int(sys.argv[1]) << 20) // PAGE
    name = (sys.argv[2:] or ["page"])[0].encode()
    noise = random.Random(1).randbytes(PAGE // 2)
    memory = mmap.mmap(-1, count * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

    def expected(page: int) -> bytes:
        return (name + b" %d " % page + noise).ljust(PAGE, b".")

    for page in range(count):
        memory[page * PAGE : (page + 1) * PAGE] = expected(page)
    print("filled", flush=True)
    for _ in sys.stdin:
        wrong = sum(memory[p * PAGE : (p + 1) * PAGE] != expected(p) for p in range(count))
        print(f"{wrong} wrong", flush=True)


if __name__ == "__main__":
    main()
