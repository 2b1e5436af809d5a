"""Pages to put: told apart by a seed, and of every kind that the codec knows."""

import functools
import random

KINDS = ("zero", "word", "text", "raw")


@functools.lru_cache(maxsize=4096)
def page(seed: int, size: int = 4096, kind: str = "raw") -> bytes:
    """A page of *size* bytes; another seed gives another page, unless it is all zeros.

    *zero* and *word* take (next to) nothing when stored, *raw* its own size, and *text* some part
    of it that depends on the seed.
    """
    if kind == "zero":
        return bytes(size)
    if kind == "word":
        return (seed + 1).to_bytes(8, "little") * (size // 8)
    source = random.Random(f"{seed} {size} {kind}")
    if kind == "raw":
        return source.randbytes(size)
    part = source.randrange(size // 16, size * 3 // 4)
    return source.randbytes(part) + bytes(size - part)


def run(seed: int, count: int, size: int = 4096, kind: str = "raw") -> bytes:
    """*count* different pages, one after the other."""
    return b"".join(page(seed + i, size, kind) for i in range(count))


def split(data: bytes, size: int = 4096) -> list[bytes]:
    """The pages of a run."""
    return [data[at : at + size] for at in range(0, len(data), size)]
