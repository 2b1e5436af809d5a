"""The tmem core beside bare lz4, on the same pages: what a put and a get cost on top of it."""

import time
from collections.abc import Callable, Sequence
from functools import partial

import lz4.block

from benchmarks.rounds import Figure, Measure, Rounds
from tmemfs.native.storage import make_storage
from tmemfs.tmem import Core, Pool
from tmemfs.tmem.storage import MakeStorage, PythonStorage

# What one FUSE request brings: runs are what the volumes put and get.
RUN = 1 << 20
TARGET = 1.5


def core_figures(data: bytes, page_sizes: Sequence[int], rounds: int) -> list[Figure]:
    """Put and get of the whole of *data* in runs of 1 MiB, seconds a page, for each page size."""
    return [figure for size in page_sizes for figure in _of_page_size(data, size, rounds)]


def _of_page_size(data: bytes, page_size: int, rounds: int) -> list[Figure]:
    pages = [data[start : start + page_size] for start in range(0, len(data), page_size)]
    runs = [data[start : start + RUN] for start in range(0, len(data), RUN)]
    run_pages = RUN // page_size
    blobs = [lz4.block.compress(page, store_size=False) for page in pages]
    made = partial(Core, 4 * len(data) + (64 << 20))
    pools = {
        name: made(make_storage=storage)
        .new_client("benchmark")
        .new_pool("benchmark", kind="ephemeral", page_size=page_size)
        for name, storage in _storages().items()
    }

    def compress() -> object:
        return [lz4.block.compress(page, store_size=False) for page in pages]

    def decompress() -> object:
        # What a reader gets is a buffer for each run, in both variants.
        return [
            b"".join(
                [
                    lz4.block.decompress(blob, uncompressed_size=page_size)
                    for blob in blobs[first : first + run_pages]
                ]
            )
            for first in range(0, len(blobs), run_pages)
        ]

    def put(pool: Pool, object_id: int = 1) -> int:
        return sum(
            pool.put_many(object_id, number * run_pages, run) for number, run in enumerate(runs)
        )

    def get(pool: Pool, object_id: int = 2) -> list[bytearray]:
        return [
            pool.get_run(object_id, first, run_pages)[0]
            for first in range(0, len(pages), run_pages)
        ]

    def timed(work: Callable[[], object], before: Callable[[], object] = int) -> Measure:
        def measure() -> float:
            before()
            start = time.perf_counter()
            result = work()
            seconds = time.perf_counter() - start
            del result  # freeing it is nobody's work
            return seconds / len(pages)

        return measure

    variants = {"lz4 compress": timed(compress), "lz4 decompress": timed(decompress)}
    beside: dict[str, str] = {}
    for name, pool in pools.items():
        if put(pool, 2) != len(pages) or b"".join(get(pool, 2)) != b"".join(pages):
            raise AssertionError("the core did not give back what it was given")
        what = f"{page_size >> 10} KiB{name}"
        flush = partial(pool.flush_object, 1)
        variants[f"core put {what}"] = timed(partial(put, pool), before=flush)
        variants[f"core get {what}"] = timed(partial(get, pool))
        beside |= {f"core put {what}": "lz4 compress", f"core get {what}": "lz4 decompress"}
    done = Rounds(variants, rounds)
    return [done.figure(subject, other, "page", TARGET) for subject, other in beside.items()]


def _storages() -> dict[str, MakeStorage]:
    """The kinds of storage that there are here, by what is added to their names."""
    native = make_storage()
    python: dict[str, MakeStorage] = {", native=off" if native else "": PythonStorage}
    return {"": native, **python} if native else python
