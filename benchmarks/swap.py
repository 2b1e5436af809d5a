"""The same program out of memory on two kinds of swap: a tmemfs swap volume, and zram with lz4.

The program is `examples/memory_pressure.py` in a memory cgroup that holds a quarter of its pages;
it checks every page. Its own work, the same on both, is part of the times.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from benchmarks.rounds import Figure
from benchmarks.servers import tmemfs

# The examples are programs, not a package; their helpers are imported by their plain names.
EXAMPLES = Path(__file__).parent.parent / "examples"
sys.path.append(str(EXAMPLES))

from loop_swap import run, swap_on  # noqa: E402
from memory_limit import MemoryLimit, memory_controller  # noqa: E402

MIB = 1 << 20
ZRAM = Path("/sys/class/zram-control")
STEPS = ("filled", "read in order", "read and rewritten at random")


def lacking() -> str | None:
    """Why this cannot be measured here; None where it can."""
    if os.geteuid() != 0:
        return "needs root"
    if memory_controller() is None:
        return "needs the memory controller of cgroups"
    return None if ZRAM.exists() else "needs zram (modprobe zram)"


def swap_figures(place: Path, mib: int, rounds: int) -> list[Figure]:
    """tmemfs beside zram, each step of a program that fills *mib* MiB; seconds a page."""
    source, mountpoint = place / "empty", place / "swap"
    source.mkdir()
    size = (mib + mib // 4) * MIB

    @contextmanager
    def on_tmemfs() -> Iterator[None]:
        options = [f"--swap=swap0={size}"]
        with (
            tmemfs(source, mountpoint, budget=size, page_size=4096, options=options) as mount,
            swap_on(mount / ".tmemfs" / "swap" / "swap0"),
        ):
            yield

    times: dict[str, dict[str, list[float]]] = {}
    for number in range(rounds):
        kinds = [("tmemfs", on_tmemfs), ("zram", lambda: _zram(size))]
        for kind, swap in kinds[:: 1 if number % 2 else -1]:
            for step, seconds in _program(swap(), mib).items():
                times.setdefault(step, {}).setdefault(kind, []).append(seconds)
    return [
        Figure(
            f"tmemfs swap, {step}",
            "zram lz4",
            "page",
            tuple(times[step]["tmemfs"]),
            tuple(times[step]["zram"]),
        )
        for step in STEPS
    ]


def _program(swap: AbstractContextManager[None], mib: int) -> dict[str, float]:
    """Run the program on *swap*; seconds a page of each of its steps."""
    with swap, MemoryLimit(mib * MIB // 4) as limit:
        command: list[str | Path] = [
            sys.executable,
            EXAMPLES / "memory_pressure.py",
            f"--mib={mib}",
        ]
        said = run(*limit.command(command))
    seconds = {}
    for line in said.splitlines():
        step, _, rest = line.partition(": ")
        pages, wrong, took = rest.split(", ")
        assert wrong == "0 wrong", line
        seconds[step] = float(took.split()[0]) / int(pages.split()[0])
    return seconds


@contextmanager
def _zram(size: int) -> Iterator[None]:
    device = run("zramctl", "--find", "--size", str(size), "--algorithm", "lz4")
    try:
        run("mkswap", device)
        run("swapon", "--discard", device)
        yield
    finally:
        subprocess.run(["swapoff", device], check=False, stderr=subprocess.DEVNULL)
        run("zramctl", "--reset", device)
