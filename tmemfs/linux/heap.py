"""The C heap of this process: warmed and kept for swap, given back to the system elsewhere."""

import ctypes

# mallopt(3)
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8
_NEVER = (1 << 31) - 1
_CHUNK = 1 << 20
_LARGEST = 32 << 20  # the most that it takes
# Of a size that the allocator of small objects hands out, and about how many of them fill one of
# the pieces that it asks the system for.
_SMALL = 448
_SMALL_IN_A_PIECE = (1 << 20) // 512

_libc = ctypes.CDLL(None)
_libc.malloc.restype = ctypes.c_void_p
_libc.malloc.argtypes = (ctypes.c_size_t,)
_libc.free.argtypes = (ctypes.c_void_p,)

_kept: list[bytes] = []


def warm(size: int) -> None:
    """Touch *size* bytes of the C heap and a tenth of it for small objects, and keep them.

    From now on the heap grows but never shrinks, for all threads, so that what was used for one
    request is there for the next one. Without effect where the C library has no mallopt.
    """
    try:
        mallopt = _libc.mallopt
    except AttributeError:  # musl
        return
    # One heap for all threads, that gives nothing back; large buffers too come from it.
    for option, value in (
        (_M_ARENA_MAX, 1),
        (_M_TRIM_THRESHOLD, _NEVER),
        (_M_TOP_PAD, _CHUNK),
        (_M_MMAP_THRESHOLD, _LARGEST),
    ):
        mallopt(option, value)
    chunks = [_libc.malloc(_CHUNK) for _ in range(-(-size // _CHUNK))]
    for chunk in filter(None, chunks):
        ctypes.memset(chunk, 0, _CHUNK)
    for chunk in chunks:
        _libc.free(chunk)
    # One object that stays in each piece keeps it from being given back.
    small = [bytes(_SMALL) for _ in range(size // 10 // _SMALL)]
    _kept.extend(small[::_SMALL_IN_A_PIECE])


def cool() -> None:
    """Give back what the C heap does not use, also amid what it does; some milliseconds.

    Without effect after `warm`, and where the C library has no malloc_trim.
    """
    if not _kept and hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)
