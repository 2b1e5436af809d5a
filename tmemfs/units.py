"""Sizes as people write them and as util-linux prints them."""

from __future__ import annotations

import re
from decimal import Decimal

from tmemfs.errors import UsageError
from tmemfs.linux.system import usable_memory

_LETTERS = "KMGTPE"
_BINARY = {letter: 1024**power for power, letter in enumerate(_LETTERS, start=1)}
# As in util-linux: K and KiB are 1024, KB is 1000.
_FACTORS = (
    {"": 1, "B": 1}
    | _BINARY
    | {f"{letter}IB": factor for letter, factor in _BINARY.items()}
    | {f"{letter}B": 1000**power for power, letter in enumerate(_LETTERS, start=1)}
)
_SIZE = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)(?P<unit>%|[A-Za-z]*)")
_LARGEST = 2**63 - 1  # an off_t


def parse_size(text: str, *, whole: int | None = None) -> int:
    """The number of bytes that `text` means: `4096`, `512M`, `1.5GiB`, `25%`.

    Units are binary (K, M, G, T, P, E, also as KiB); those that end in a plain B (KB, MB) are
    decimal, as everywhere in util-linux. Case does not matter. A percentage is of `whole` bytes,
    by default of the physical memory. A fraction of a byte is rounded down.

    Raises UsageError, naming the text, for anything else.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is not a size; write it like 512M, 1.5G, 4096 or 25%")
    number, unit = Decimal(match["number"]), match["unit"].upper()
    if unit == "%":
        if number > 100:
            raise UsageError(f"{text!r} is more than all of it")
        return int(number * (usable_memory() if whole is None else whole) / 100)
    if unit not in _FACTORS:
        raise UsageError(f"unknown unit in the size {text!r}; the units are {', '.join(_LETTERS)}")
    if "." in match["number"] and _FACTORS[unit] == 1:
        raise UsageError(f"{text!r} is not a whole number of bytes")
    size = int(number * _FACTORS[unit])
    if size > _LARGEST:
        raise UsageError(f"the size {text!r} is too large")
    return size


def format_size(size: int) -> str:
    """`size` bytes (not negative) in at most six characters: `512B`, `64K`, `1.5G`.

    One decimal, rounded half up, and none where it would be zero; the same as util-linux prints,
    except that what rounds to 1024 of a unit is written as one of the next.
    """
    if size < 1024:
        return f"{size}B"
    for letter, factor in _BINARY.items():
        tenths = (size * 20 + factor) // (factor * 2)
        if tenths < 10240 or letter == _LETTERS[-1]:
            break
    whole, tenth = divmod(tenths, 10)
    return f"{whole}.{tenth}{letter}" if tenth else f"{whole}{letter}"
