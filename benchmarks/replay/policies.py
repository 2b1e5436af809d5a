"""The policies beside which the pool is shown, as others have written them: libcachesim's."""

import importlib.util
from collections.abc import Iterable

PEERS = {
    "S3-FIFO": "S3FIFO",
    "LRU": "LRU",
    "FIFO": "FIFO",
    "SIEVE": "Sieve",
    "ARC": "ARC",
    "W-TinyLFU": "WTinyLFU",
}
"""What they are called, and what libcachesim calls them; all with its own parameters."""

# Its hash table begins with 2 to the power of so many entries; it grows, and changes no figure.
_HASH_POWER = 18


def lacking() -> str | None:
    """Why there are no peers here; None where there are."""
    if importlib.util.find_spec("libcachesim") is None:
        return "libcachesim is missing (pip install libcachesim)"
    return None


def peer_hits(peer: str, keys: Iterable[int], pages: int) -> int:
    """How many of *keys* a cache of *pages* pages has, one of `PEERS`, that starts empty."""
    import libcachesim

    cache = getattr(libcachesim, PEERS[peer])(pages, hashpower=_HASH_POWER)
    request = libcachesim.Request()
    request.obj_size = 1
    hits = 0
    for key in keys:
        request.obj_id = key
        hits += cache.get(request)
    return hits
