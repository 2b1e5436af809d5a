"""A million random puts and flushes, and what they did to this process's memory.

Run as a program by T13; prints a name and a number a line.
"""

import random
import sys
from pathlib import Path

from tmemfs.pages import Segment
from tmemfs.tmem import Core, Pool

BUDGET = 48 << 20
PUTS = 1_000_000

_STATM = Path("/proc/self/statm")


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(_STATM.read_text().split()[1]) * 4096


class Watched(Core):
    """A core that remembers the most it was ever charged with, also while pages move."""

    def __init__(self, budget: int) -> None:
        super().__init__(budget, capacity=budget)
        self.charged_most = 0
        take = self._arena.take

        def watch(number: int, holder: Segment) -> None:
            take(number, holder)
            self.charged_most = max(self.charged_most, self._arena.charged_bytes)

        self._arena.take = watch  # type: ignore[method-assign]


def material(source: random.Random) -> bytes:
    """Pages to cut runs from: of all kinds and of all sizes when they are stored."""
    pages = []
    for number in range(2048):
        kind = number % 8
        if kind < 3:
            pages.append(bytes(4096))
        elif kind < 6:
            part = source.randrange(64, 3500)
            pages.append(source.randbytes(part) + bytes(4096 - part))
        else:
            pages.append(source.randbytes(4096))
    source.shuffle(pages)
    return b"".join(pages)


def main() -> None:
    source = random.Random(13)
    data = material(source)
    first = resident()
    core = Watched(BUDGET)
    client = core.new_client("client")

    def new_pool(number: int) -> Pool:
        kind = "persistent" if number % 2 else "ephemeral"
        return client.new_pool(kind, kind=kind, page_size=4096 << number % 3)

    pools = [new_pool(number) for number in range(6)]
    most = {"resident": first, "used": 0}
    puts = flushed = step = 0
    while puts < PUTS:
        step += 1
        pool = source.choice(pools)
        # Many small objects, and some large and sparse ones.
        object_id = source.getrandbits(11) << 180 if step % 3 else source.randrange(3)
        index = source.randrange(64) if step % 3 else source.getrandbits(18)
        count = source.choice((1, 4, 32, 256))
        start = source.randrange(len(data) // 4096 - 256) * 4096
        run = data[start : start + max(count * 4096, pool.page_size)]
        puts += len(run) // pool.page_size
        if pool.put_many(object_id, index, run) * pool.page_size < len(run):
            # The persistent pools are full: some of it is flushed.
            for victim in source.sample(list(pool.objects), len(pool.objects) // 4):
                flushed += pool.flush_object(victim.id)
        if step % 4 == 0:
            pool.get_many(object_id, index, 16)
        if step % 5 == 0:
            flushed += pool.flush_many(object_id, source.randrange(64), 1 << source.randrange(19))
        if step % 16 == 0:
            most["resident"] = max(most["resident"], resident())
            most["used"] = max(most["used"], core._arena.charged_bytes)
        if step % 5000 == 0:
            number = source.randrange(len(pools))
            client.destroy_pool(pools[number])
            pools[number] = new_pool(number)
    figures = core.statistics()
    for pool in pools:
        for owner in list(pool.objects):
            flushed += pool.flush_object(owner.id)
    report = {
        "puts": puts,
        "flushed": flushed,
        "evicted": figures["reclaim"]["evicted_pgs"],
        "cleaned": figures["reclaim"]["cleaned_segments"],
        "segment_size": figures["memory"]["segment_size"],
        "charged_most": core.charged_most,
        "used_most": most["used"],
        "resident_first": first,
        "resident_most": most["resident"],
        "resident_last": resident(),
    }
    sys.stdout.writelines(f"{name} {value}\n" for name, value in report.items())


if __name__ == "__main__":
    main()
