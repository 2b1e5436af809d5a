"""Stamps: one integer of times and size that changes when the file does.

It is made of the modification time, the change time and the size.
"""

from __future__ import annotations

import os
import time

# Two changes within one tick of a filesystem's clock leave the same times behind. A file that
# changed less than this long (ns) before it was looked at may change again unseen.
TICK = 20_000_000
_COARSE_TICK = 2_000_000_000
_SECOND = 1_000_000_000

_U64 = (1 << 64) - 1
IS_SET = 1 << 63
"""in every stamp; no size has this bit"""
SIZE = IS_SET - 1
"""what of a stamp is the size"""


def stamp(info: os.stat_result) -> int:
    """Modification time, change time and size in one int of 192 bits, which is never 0."""
    size = info.st_size | IS_SET
    return (info.st_mtime_ns & _U64) << 128 | (info.st_ctime_ns & _U64) << 64 | size


def as_of(info: os.stat_result, modified: int, changed: int, size: int) -> os.stat_result:
    """Return *info* with other times (ns) and another size: the same file at another moment."""
    return os.stat_result(
        (*info[:6], size, *info[7:]),
        {"st_mtime_ns": modified, "st_ctime_ns": changed, "st_atime_ns": info.st_atime_ns},
    )


def settled(info: os.stat_result) -> bool:
    """Whether a change from now on must show in the file's times."""
    newest = max(info.st_mtime_ns, info.st_ctime_ns)
    coarse = not (info.st_mtime_ns % _SECOND or info.st_ctime_ns % _SECOND)
    return abs(time.time_ns() - newest) > (_COARSE_TICK if coarse else TICK)
