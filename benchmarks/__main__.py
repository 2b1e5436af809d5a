"""The command: measures what is asked for, prints it, and writes it as JSON if wanted."""

import argparse
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import trio

from benchmarks.cache import figures as cache_figures
from benchmarks.cache import plot as cache_plot
from benchmarks.cache.far import FAR
from benchmarks.cache.throttled import THROTTLED
from benchmarks.core import RUN, core_figures
from benchmarks.corpus import corpus
from benchmarks.fio import RANDOM_4K, SEQUENTIAL_1M
from benchmarks.frames import short_paths
from benchmarks.guest import image as guests
from benchmarks.guest.rows import ROWS
from benchmarks.guest.table import measure
from benchmarks.local import table as local
from benchmarks.mount import MIB, mount_figures
from benchmarks.page_sizes import PageSizes
from benchmarks.plotting import lacking as plotter_lacking
from benchmarks.replay.section import FULL, QUICK, replay_all
from benchmarks.report import Report
from benchmarks.stalls import loads as stall_loads
from benchmarks.stalls.figures import SAYS as STALLS_SAYS
from benchmarks.stalls.figures import StallBenchmark, stall_rows
from benchmarks.swap import plot as swap_plot
from benchmarks.swap.capacity import rows as capacity_rows
from benchmarks.swap.figures import SwapBenchmark, fault_rows, lacking
from benchmarks.swap.peers import PEERS, TMEMFS
from benchmarks.swap.program import PAGE
from tmemfs.cli.interrupts import Interrupted
from tmemfs.config import DEFAULT_PAGE_SIZE

SLOW = {"far": FAR, "throttled": THROTTLED}
PAGE_SIZES = [4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10]


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--core", action="store_true", help="the core beside lz4")
    parser.add_argument("--mount", action="store_true", help="the mount beside null filesystems")
    parser.add_argument("--page-sizes", action="store_true", help="4 to 64 KiB beside the default")
    parser.add_argument("--swap", action="store_true", help="swap beside other swap, as root")
    parser.add_argument("--cache", action="store_true", help="a slow directory, as root")
    parser.add_argument(
        "--stalls", action="store_true", help="swap beside work with names, as root"
    )
    parser.add_argument("--replay", action="store_true", help="hit ratios beside other policies")
    parser.add_argument("--guest", action="store_true", help="machines out of memory, as root")
    parser.add_argument("--names", action="store_true", help="names of a local disk beside bindfs")
    parser.add_argument("--writes", action="store_true", help="writes to it beside bindfs")
    parser.add_argument("--quick", action="store_true", help="few short rounds: does it all run?")
    parser.add_argument("--rounds", type=int, help="rounds of each measurement (25; quick: 3)")
    parser.add_argument(
        "--runtime", type=float, help="seconds of reads in a round (0.4; quick: 0.2)"
    )
    parser.add_argument("--mib", type=int, help="MiB of real data to work on (64; quick: 16)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument(
        "--peers", nargs="+", choices=PEERS, default=list(PEERS), help="what to swap to"
    )
    parser.add_argument(
        "--slow", choices=SLOW, default="far", help="the slow directory: sshfs, or a slow disk"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw swap, or the cache")
    options = parser.parse_args(argv)
    if TMEMFS not in options.peers:
        options.peers.insert(0, TMEMFS)
    if not any(getattr(options, section) for section in SECTIONS):
        options.core = options.mount = options.swap = options.replay = options.cache = True
        options.stalls = True
    if options.swap and options.cache and options.plot:
        parser.error("--plot draws one picture: of --swap or of --cache")
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
    if options.plot and (reason := plotter_lacking()):
        sys.exit(f"benchmarks: {reason}")
    data = corpus(options.mib * MIB)
    report = Report(f"{options.mib} MiB of libraries and sources, {options.rounds} rounds")
    # Not in /tmp, which may be memory: the sources of the mounts are to be real files.
    with tempfile.TemporaryDirectory(prefix="tmemfs-benchmark-", dir="/var/tmp") as directory:
        for name, section in SECTIONS.items():
            if getattr(options, name):
                place = Path(directory, name)
                place.mkdir()
                try:
                    section(report, options, data, place)
                except Interrupted as signaled:
                    sys.exit(128 + signaled.number)
    if options.json:
        report.write(options.json)
    return 0


def core(report: Report, options: argparse.Namespace, data: bytes, _: Path) -> None:
    """The core beside lz4, at the smallest page size and at the default."""
    figures = core_figures(data, [PAGE_SIZES[0], DEFAULT_PAGE_SIZE], options.rounds)
    report.show(f"core, runs of {RUN // MIB} MiB, a page", figures)


def mount(report: Report, options: argparse.Namespace, data: bytes, place: Path) -> None:
    """The mount beside filesystems that do nothing."""
    figures, notes = mount_figures(place, data, DEFAULT_PAGE_SIZE, options.rounds, options.runtime)
    page = f"{DEFAULT_PAGE_SIZE >> 10} KiB pages"
    report.show(f"mount, {page}, direct, all hits, {_reads(options)}", figures)
    for note in notes:
        report.note(note)
    (place / "frames").mkdir()
    found = trio.run(short_paths, place / "frames")
    counts = ", ".join(f"{what} {len(frames)}" for what, frames in found.items())
    report.note(f"frames of Python, from the handler on: {counts}")


def page_sizes(report: Report, options: argparse.Namespace, data: bytes, place: Path) -> None:
    """Every page size beside the default."""
    sizes = PageSizes(place, data, PAGE_SIZES, DEFAULT_PAGE_SIZE)
    few = max(3, options.rounds // 5)
    title = f"page sizes, direct, {_reads(options)}"
    report.show(title, sizes.warm(RANDOM_4K, options.rounds, options.runtime))
    report.show(title, sizes.warm(SEQUENTIAL_1M, options.rounds, options.runtime))
    report.show(title, sizes.cold(SEQUENTIAL_1M, few))
    report.show(title, sizes.cold(RANDOM_4K, few, reads=len(data) // (16 * PAGE_SIZES[0])))
    report.show("page sizes, each file once", sizes.cold_tree(few))
    report.show_memory(sizes.memory)


def swap(report: Report, options: argparse.Namespace, data: bytes, place: Path) -> None:
    """Swap on a tmemfs volume beside other kinds of swap."""
    if reason := lacking():
        report.note(f"swap: not measured, {reason}")
        return
    pages = 4 * len(data) // PAGE
    done = SwapBenchmark([PEERS[name] for name in options.peers], place, data, pages)
    done.measure(max(1, options.rounds // 5))
    title = f"swap, {4 * options.mib} MiB of pages in {options.mib} MiB of memory"
    report.show(f"{title}, a page", done.figures())
    found = done.faults()
    report.show_rows("faults", f"{title}, medians of the rounds", fault_rows(found), found, left=2)
    report.show_rows(
        "capacity",
        "swap, what is held in memory",
        capacity_rows(done.capacity),
        [entry.as_dict() for entry in done.capacity],
    )
    for note in done.notes:
        report.note(note)
    if options.plot:
        swap_plot.draw(options.plot, title, found, done.capacity)


def cache(report: Report, options: argparse.Namespace, data: bytes, place: Path) -> None:
    """A slow directory through tmemfs, beside itself and through others."""
    kind = SLOW[options.slow]
    if reason := cache_figures.lacking(kind):
        report.note(f"cache: not measured, {reason}")
        return
    files, reads = max(8, 2 * options.mib), max(16, 4 * options.mib)
    done = cache_figures.CacheBenchmark(kind, place, data, files, reads)
    done.measure(max(1, options.rounds // 5))
    title = f"a slow directory: {options.mib} MiB in one file, {reads} random reads, {files} files"
    report.show(title, done.figures())
    times = done.times()
    rows = cache_figures.time_rows(times, kind.requests)
    report.show_rows("cache", f"{title}, medians", rows, times, left=3)
    for note in done.notes:
        report.note(note)
    if options.plot:
        cache_plot.draw(options.plot, title, times)


def names(report: Report, options: argparse.Namespace, _: bytes, place: Path) -> None:
    """Names of a local directory beside bindfs."""
    _local(report, options, place, "names of a local directory", local.names)


def writes(report: Report, options: argparse.Namespace, _: bytes, place: Path) -> None:
    """Writes to a local directory beside bindfs."""
    _local(report, options, place, "writes to a local directory", local.writes)


def _local(
    report: Report,
    options: argparse.Namespace,
    place: Path,
    title: str,
    tasks: Callable[[local.Sizes], Sequence[local.Task]],
) -> None:
    if reason := local.lacking():
        report.note(f"{title}: not measured, {reason}")
        return
    sizes = local.QUICK if options.quick else local.FULL
    done = local.LocalBenchmark(place, sizes, tasks)
    done.measure(max(1, options.rounds // 5))
    report.show(f"{title}, each round on fresh mounts", done.figures())


def stalls(report: Report, options: argparse.Namespace, data: bytes, place: Path) -> None:
    """Reads of swap while others work with names of the same mount."""
    if reason := stall_loads.lacking():
        report.note(f"stalls: not measured, {reason}")
        return
    few = stall_loads.Sizes(names=20_000, files=1_000, seconds=0.5)
    many = stall_loads.Sizes(names=150_000, files=10_000, seconds=3.0)
    done = StallBenchmark(place, data, few if options.quick else many)
    done.measure(max(1, options.rounds // 5))
    title = "reads of swap beside work with names"
    report.show(title, done.figures())
    found = done.medians()
    report.show_rows("stalls", f"{title}, medians of the rounds", stall_rows(found), found)
    report.note(STALLS_SAYS)


def replay(report: Report, options: argparse.Namespace, data: bytes, place: Path) -> None:
    """The order of reclaim beside other policies, on block traces."""
    replay_all(report, place, QUICK if options.quick else FULL, data)


def guest(report: Report, options: argparse.Namespace, data: bytes, _: Path) -> None:
    """Which machines go on when they are out of memory as a whole."""
    if reason := guests.lacking():
        report.note(f"guest: not measured, {reason}")
        return
    for line in measure(ROWS, max(1, options.rounds // 8)):
        print(line, flush=True)


def _reads(options: argparse.Namespace) -> str:
    return f"fio psync, 1 job, {options.runtime:g} s a round"


SECTIONS = {
    "core": core,
    "mount": mount,
    "page_sizes": page_sizes,
    "swap": swap,
    "cache": cache,
    "names": names,
    "writes": writes,
    "stalls": stalls,
    "replay": replay,
    "guest": guest,
}

if __name__ == "__main__":
    sys.exit(main())
