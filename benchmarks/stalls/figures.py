"""The reader beside each load in turn, and the figures that come of it."""

import json
import statistics
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import servers
from benchmarks.compiler import compile_c
from benchmarks.rounds import Figure, turns
from benchmarks.stalls.loads import IDLE, Load, Sizes, loads, make_source
from tmemfs.config import DEFAULT_PAGE_SIZE

TARGET = 5.0
"""How much longer the 99th percentile of the reads may be beside a load than on an idle mount."""

_SWAP = 16 << 20
_BUDGET = 64 << 20
_PAGE = 4096
SAYS = (
    "Reads of 4 KiB of a swap volume at random, past the kernel's cache, one due each millisecond,"
    " while others work with names of the same mount; no answer: 16 look for names in a filesystem"
    " below the source that was mounted later, and whose server is stopped."
)


@dataclass(frozen=True)
class Stall:
    """What the reads took beside a load, in seconds, and how long the load took itself."""

    reads: int
    p50: float
    p99: float
    p999: float
    max: float
    seconds: float


class StallBenchmark:
    """What the reads took, by load, round by round, is in `stalls`."""

    def __init__(self, place: Path, data: bytes, sizes: Sizes) -> None:
        """*place* is an empty directory on a local disk. Raises OSError without a compiler."""
        self.stalls: dict[str, list[Stall]] = {}
        self._place = place
        self._data = (data * (_SWAP // len(data) + 1))[:_SWAP]
        self._sizes = sizes
        self._reader = place / "reader"
        compile_c(Path(__file__).with_name("reader.c"), self._reader)

    def measure(self, rounds: int) -> None:
        """Read beside each load, *rounds* times."""
        source = self._place / "source"
        source.mkdir()
        make_source(source, self._sizes)
        options = [f"--swap=swap0={_SWAP}"]
        with (
            ExitStack() as below,  # ends last: who looks through the mount holds what is below it
            servers.tmemfs(
                source,
                self._place / "mount",
                budget=_BUDGET,
                page_size=DEFAULT_PAGE_SIZE,
                options=options,
            ) as mount,
        ):
            # Mounted after the start: nobody could know of it then.
            (self._place / "data").write_bytes(self._data[:_PAGE])
            stuck = source / "stuck"
            command = servers.null_pyfuse3_command(self._place / "data", stuck)
            server = below.enter_context(servers.mounted(command, stuck))
            swap = mount / ".tmemfs" / "swap" / "swap0"
            swap.write_bytes(self._data)
            work = {load.name: load for load in loads(self._sizes, server)}
            self.stalls = {name: [] for name in work}
            for name in turns(list(work), rounds):
                work[name].prepare(source)
                self.stalls[name].append(self._beside(work[name], mount, swap))

    def figures(self) -> list[Figure]:
        """Each load beside idleness, by the 99th percentile."""
        idle = tuple(stall.p99 for stall in self.stalls[IDLE])
        return [
            Figure(f"p99, {name}", IDLE, "read", tuple(stall.p99 for stall in found), idle, TARGET)
            for name, found in self.stalls.items()
            if name != IDLE
        ]

    def medians(self) -> list[dict[str, Any]]:
        """What the reads took beside each load: medians of the rounds, but the longest of all."""
        found = []
        for name, stalls in self.stalls.items():
            rows = [asdict(stall) for stall in stalls]
            median = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
            found.append({"load": name, **median, "max": max(row["max"] for row in rows)})
        return found

    def _beside(self, load: Load, mount: Path, swap: Path) -> Stall:
        command = [str(self._reader), str(swap), str(_SWAP // _PAGE)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
            assert reader.stdout is not None
            assert reader.stdin is not None
            try:
                if reader.stdout.readline() != b"ready\n":
                    raise OSError("the reader did not begin")
                start = time.monotonic()
                load.run(mount)
                seconds = time.monotonic() - start
                said, _ = reader.communicate(timeout=60)
            finally:
                reader.kill()  # no harm where it has ended
        found = json.loads(said)
        times = {key: found[key] * 1e-9 for key in ("p50", "p99", "p999", "max")}
        return Stall(reads=found["reads"], **times, seconds=seconds)


def stall_rows(found: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """A table of `StallBenchmark.medians`, microseconds."""
    table: list[tuple[str, ...]] = [
        ("beside", "p50 us", "p99 us", "p99.9 us", "longest us", "reads", "load s")
    ]
    for row in found:
        times = [f"{row[key] * 1e6:.0f}" for key in ("p50", "p99", "p999", "max")]
        table.append((row["load"], *times, f"{row['reads']:.0f}", f"{row['seconds']:.2f}"))
    return table
