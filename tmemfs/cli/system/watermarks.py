"""What the kernel holds back of its memory, which the loop device's worker lives on.

That worker is a thread of the kernel and takes a little memory for each request that it hands to
the daemon; a filesystem does so for each write to an overflow file. After memory was fragmented the
kernel *boosts* its water marks: it holds back much more, from these too, which then wait for the
memory that they are to make free. Either no boost or more behind it prevents that;
`docs/swap-safety.md` has what was measured.
"""

from __future__ import annotations

import os

from tmemfs.linux import system

SETTINGS = "/proc/sys/vm"
BOOST = "watermark_boost_factor"
MIN_FREE = "min_free_kbytes"

_LEAST = 64 << 20


def held_back() -> int:
    """How many bytes the kernel holds back."""
    return _setting(MIN_FREE) << 10


def wanted() -> int:
    """How many it should: 64 MiB, or a hundredth of a large memory."""
    return max(_LEAST, system.physical_memory() // 100) // 1024 * 1024


def boosted() -> bool:
    """Whether it may hold back more all of a sudden. Kernels before 5.0 never do."""
    return _setting(BOOST) > 0


def may_stop() -> bool:
    """Whether the loop device's worker may wait for ever once the machine is out of memory."""
    return boosted() and held_back() < wanted()


def less_boost() -> str:
    """The command that switches the boost off."""
    return f"'sysctl vm.{BOOST}=0'"


def more_behind() -> str:
    """The command that has the kernel hold back as much as is wanted."""
    return f"'sysctl vm.{MIN_FREE}={wanted() >> 10}'"


def _setting(name: str) -> int:
    """One of the kernel's numbers, 0 where it does not have it."""
    try:
        with open(os.path.join(SETTINGS, name), encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 0
