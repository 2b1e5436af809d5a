"""The heap of the daemon: given back when many inodes have gone, kept where swap needs it."""

import subprocess
import sys

import pytest

# Small blocks of the C heap, all of which are freed but the last, which holds what is below it.
PROGRAM = """
import ctypes
from tmemfs.linux import heap

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

libc = heap._libc
if {warm}:
    heap.warm(1 << 20)
blocks = [libc.malloc(1000) for _ in range(50_000)]
for block in blocks:
    ctypes.memset(block, 1, 1000)
for block in blocks[:-1]:
    libc.free(block)
before = resident()
heap.cool()
print(before - resident())
"""


@pytest.mark.parametrize("warm", [False, True])
def test_the_heap_gives_back_what_it_does_not_use(warm: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(warm=warm)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    given_back = int(done.stdout)
    assert given_back < 1_000_000 if warm else given_back > 40_000_000
