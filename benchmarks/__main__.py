"""The command: measures what is asked for, prints it, and writes it as JSON if wanted."""

import argparse
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.core import RUN, core_figures
from benchmarks.corpus import corpus
from benchmarks.fio import RANDOM_4K, SEQUENTIAL_1M
from benchmarks.mount import MIB, mount_figures
from benchmarks.page_sizes import PageSizes
from benchmarks.report import figures_table, machine, memory_table
from benchmarks.rounds import Figure
from benchmarks.swap import lacking, swap_figures
from tmemfs.config import DEFAULT_PAGE_SIZE

PAGE_SIZES = [4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10]


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--core", action="store_true", help="the core beside lz4")
    parser.add_argument("--mount", action="store_true", help="the mount beside null filesystems")
    parser.add_argument("--page-sizes", action="store_true", help="4 to 64 KiB beside the default")
    parser.add_argument("--swap", action="store_true", help="swap beside zram, as root")
    parser.add_argument("--quick", action="store_true", help="few short rounds: does it all run?")
    parser.add_argument("--rounds", type=int, help="rounds of each measurement (25; quick: 3)")
    parser.add_argument(
        "--runtime", type=float, help="seconds of reads in a round (0.4; quick: 0.2)"
    )
    parser.add_argument("--mib", type=int, help="MiB of real data to work on (64; quick: 16)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    options = parser.parse_args(argv)
    if not (options.core or options.mount or options.page_sizes or options.swap):
        options.core = options.mount = options.swap = True
    for name, usual, quick in (("rounds", 25, 3), ("runtime", 0.4, 0.2), ("mib", 64, 16)):
        if getattr(options, name) is None:
            setattr(options, name, quick if options.quick else usual)
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    # Ended from outside, it unmounts all the same.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    options = parse(argv)
    if (options.mount or options.page_sizes) and shutil.which("fio") is None:
        sys.exit("benchmarks: fio is missing (apt-get install fio, or run scripts/setup)")
    data = corpus(options.mib * MIB)
    result: dict[str, Any] = {"machine": machine(), "figures": []}
    print(f"{options.mib} MiB of libraries and sources, {options.rounds} rounds; the ratio is the")
    print(
        "median of those of the rounds, more than 1 is slower; best is that of the fastest rounds"
    )
    print(", ".join(f"{key} {value}" for key, value in result["machine"].items()))

    def show(title: str, figures: list[Figure]) -> None:
        print(f"\n{title}\n{figures_table(figures)}", flush=True)
        result["figures"] += [{"title": title, **figure.as_dict()} for figure in figures]

    if options.core:
        figures = core_figures(data, [PAGE_SIZES[0], DEFAULT_PAGE_SIZE], options.rounds)
        show(f"core, runs of {RUN // MIB} MiB, a page", figures)
    # Not in /tmp, which may be memory: the sources of the mounts are to be real files.
    with tempfile.TemporaryDirectory(prefix="tmemfs-benchmark-", dir="/var/tmp") as directory:
        place = Path(directory)
        reads = f"fio psync, 1 job, {options.runtime:g} s a round"
        if options.mount:
            (place / "mount").mkdir()
            figures, notes = mount_figures(
                place / "mount", data, DEFAULT_PAGE_SIZE, options.rounds, options.runtime
            )
            title = f"mount, {DEFAULT_PAGE_SIZE >> 10} KiB pages, direct, all hits, {reads}"
            show("\n".join([title, *notes]), figures)
        if options.page_sizes:
            (place / "sizes").mkdir()
            sizes = PageSizes(place / "sizes", data, PAGE_SIZES, DEFAULT_PAGE_SIZE)
            few = max(3, options.rounds // 5)
            for figures in (
                sizes.warm(RANDOM_4K, options.rounds, options.runtime),
                sizes.warm(SEQUENTIAL_1M, options.rounds, options.runtime),
                sizes.cold(SEQUENTIAL_1M, few),
                sizes.cold(RANDOM_4K, few, reads=len(data) // (16 * PAGE_SIZES[0])),
                sizes.cold_tree(few),
            ):
                show(f"page sizes, {reads}", figures)
            print(f"\nmemory, by page size\n{memory_table(sizes.memory)}")
            result["memory"] = sizes.memory
        if options.swap:
            reason, mib = lacking(), 128 if options.quick else 256
            if reason is None:
                (place / "swap").mkdir()
                figures = swap_figures(place / "swap", mib, max(1, options.rounds // 5))
                show(f"swap, {mib} MiB of pages in {mib // 4} MiB of memory, a page", figures)
            else:
                print(f"\nswap: not measured, {reason}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
