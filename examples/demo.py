"""tmemfs in a minute, on this machine: a directory out of compressed memory, then swap on it.

    make demo [SOURCE=DIRECTORY] [BUDGET=256M]

Makes a slow directory: sshfs to an SFTP server of this machine whose answers take 5 ms. Mounts it
with the command that everybody uses, reads it twice, compares every byte with the source, and shows
by how much the second time is faster. As root, it then makes swap of a file of the same mount and
runs a program with a quarter of the memory that it needs. In the end nothing is left, also when it
is interrupted.
"""

import argparse
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import memory_limit
from progress_bar import progress_bar
from read_tree import Reading, files_below, forget, read_all
from sample_tree import make_sample
from slow_directory import ROUND_TRIP, lacking, slow_directory
from slow_directory import unmount as unmount_slow
from swap_under_pressure import SwapUnderPressure
from tmemfs_mount import TmemfsMount, mounted, unmount

from tmemfs.cli.interrupts import Interrupted, undoing
from tmemfs.errors import TmemfsError
from tmemfs.linux.system import tmemfs_mounts
from tmemfs.units import parse_size

# Of a slow directory, as much as takes some seconds.
SMALL_FILES, LARGE_BYTES = 150, 24 << 20
PREFIX = "tmemfs-demo-"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, help="the directory (a slow one of its own)")
    parser.add_argument("--budget", default="256M", help="memory for all pages (256M)")
    options = parser.parse_args(argv)
    try:
        demonstrate(options.source, options.budget)
    except Interrupted as interrupted:
        print("demo: interrupted; all of it is undone", file=sys.stderr)
        return 128 + interrupted.number
    except (OSError, TmemfsError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    print("Unmounted; nothing is left of it.")
    return 0


def demonstrate(source: Path | None, budget: str) -> None:
    """All of it, on a mount that is gone at the end."""
    pressure = SwapUnderPressure(parse_size(budget))
    with undoing() as undo:
        with undo.held():
            clear_leftovers()
            what = str(source)
            if source is None:
                source = undo.enter_context(slow_sample())
                what = f"a directory of which each answer takes {1000 * ROUND_TRIP:g} ms"
            mount = undo.enter_context(
                mounted(
                    source,
                    f"{PREFIX}{os.getpid()}-",
                    f"--budget={budget}",
                    *pressure.mount_options,
                )
            )
        print(f"{what} is mounted on {mount.path}, budget {budget}.\n")
        read_twice(mount, source)
        print(f"\n{mount.status_table()}\n")
        if reason := pressure.lacking():
            print(f"Swap on a file of this mount {reason}.")
            return
        for line in pressure.run(undo, mount):
            print(line, flush=True)
        print(f"\n{mount.status_table()}\n")


@contextmanager
def slow_sample() -> Iterator[Path]:
    """A slow directory with small files and two large ones. Raises OSError with what is missing."""
    if reason := lacking():
        raise OSError(f"no slow directory: {reason}; or name one: make demo SOURCE=DIRECTORY")
    place = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-slow-"))
    try:
        for name in ("store", "slow"):
            (place / name).mkdir()
        make_sample(place / "store", SMALL_FILES, LARGE_BYTES)
        with slow_directory(place / "store", place / "slow") as slow:
            yield slow.path
    finally:
        shutil.rmtree(place)


def read_twice(mount: TmemfsMount, source: Path) -> None:
    """Read the files directly, through the mount and again, each time from empty caches.

    Raises OSError where a byte is not as in the source.
    """
    files = files_below(source, None, None)
    how = forget([source], files)
    direct = read(source, files, "the source itself")
    print(f"{len(files):,} files, {direct.size / (1 << 20):.1f} MiB; before each reading, the")
    print(f"kernel's caches are dropped {how}.")
    print(f"  the source itself  {direct}")
    for title in ("first time, cold", "again, warm"):
        forget([source, mount.path], files)
        gets, found = mount.gets()
        reading = read(mount.path, files, title)
        gets, found = (now - then for now, then in zip(mount.gets(), (gets, found), strict=True))
        hits = f"{100 * found / gets:5.1f} % of pages found in tmem" if gets else "from the kernel"
        print(f"  {title:17}  {reading}  {hits}", flush=True)
        if wrong := [file for file in files if reading.digests[file] != direct.digests[file]]:
            raise OSError(f"{len(wrong)} files are not as in the source, {wrong[0]} is one")
    print("Every byte was the same as in the source, both times.")
    times = direct.seconds / reading.seconds
    print(f"The second time was {times:.1f} times as fast as the source itself.")
    memory = mount.figures()["memory"]
    ratio = memory["orig_data_size"] / max(memory["compr_data_size"], 1)
    print(f"In whole pages: {mount.memory_line()}; compressed {ratio:.2f} to 1.")


def read(top: Path, files: Sequence[Path], title: str) -> Reading:
    """Read *files* below *top*, with a bar that shows how far it is."""
    size = sum((top / file).stat().st_size for file in files)
    with progress_bar(title, size) as advance:
        return read_all(top, files, advance)


def clear_leftovers() -> None:
    """Take away what demos left behind that were killed, which nobody can undo by himself."""
    memory_limit.clear_leftovers()
    for mount in tmemfs_mounts():
        name = re.fullmatch(rf"{PREFIX}(\d+)-\w+", Path(mount.mountpoint).name)
        if name and not Path(f"/proc/{name[1]}").exists():
            print(f"Clearing away {mount.mountpoint}, of a demo that was killed.")
            unmount(Path(mount.mountpoint))
    for place in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-slow-*"):
        process = place.name.removeprefix(PREFIX).partition("-")[0]
        if not Path(f"/proc/{process}").exists():
            unmount_slow(place / "slow")
            shutil.rmtree(place)


if __name__ == "__main__":
    sys.exit(main())
