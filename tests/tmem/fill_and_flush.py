"""Fills a core whose memory is there ahead of need, and empties it, again and again.

Prints how many page faults each round took. For a process of its own.
"""

import resource
import sys

from page_data import run

from tmemfs.linux import heap
from tmemfs.tmem import Core

BUDGET = 64 << 20
ROUNDS = 5


def main() -> None:
    core = Core(BUDGET, capacity=BUDGET)
    core.keep_warm(BUDGET)
    while core.warm_up():
        pass
    heap.warm(BUDGET // 4)
    pool = core.new_client("client").new_pool("swap", kind="persistent")
    # Of these, many fit into a segment, so that tables take some of the budget as well.
    data = run(1, 16, kind="text") + run(1, 48, kind="word")
    for _ in range(ROUNDS):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        index = 0
        while pool.put_many(0, index, data) == 64:
            index += 64
        pool.flush_object(0)
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        sys.stdout.write(f"{faults}\n")


if __name__ == "__main__":
    main()
