"""tmemfs in a minute, on this machine: a directory out of compressed memory, then swap on it.

    make demo [SOURCE=DIRECTORY] [BUDGET=256M]

Mounts a directory with the command that everybody uses, reads it twice, compares every byte with
the source, and shows the figures. As root, it then makes swap of a file of the same mount and
runs a program with a quarter of the memory that it needs. In the end nothing is left, also when
it is interrupted.
"""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import memory_limit
from read_tree import files_below, forget, read_all
from swap_under_pressure import SwapUnderPressure
from tmemfs_mount import TmemfsMount, mounted, unmount

from tmemfs.cli.interrupts import Interrupted, undoing
from tmemfs.errors import TmemfsError
from tmemfs.linux.system import tmemfs_mounts
from tmemfs.units import parse_size

DEFAULT_SOURCE = Path("/usr/share")
# Of the default source, as much as takes some seconds; of one that was asked for, everything.
DEFAULT_FILES, DEFAULT_BYTES = 8000, 256 << 20
PREFIX = "tmemfs-demo-"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, help=f"the directory ({DEFAULT_SOURCE}, in part)")
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
            mount = undo.enter_context(
                mounted(
                    source or DEFAULT_SOURCE,
                    f"{PREFIX}{os.getpid()}-",
                    f"--budget={budget}",
                    *pressure.mount_options,
                )
            )
        print(f"{source or DEFAULT_SOURCE} is mounted on {mount.path}, budget {budget}.\n")
        if source:
            read_twice(mount, source, None, None)
        else:
            read_twice(mount, DEFAULT_SOURCE, DEFAULT_FILES, DEFAULT_BYTES)
        print(f"\n{mount.status_table()}\n")
        if reason := pressure.lacking():
            print(f"Swap on a file of this mount {reason}.")
            return
        for line in pressure.run(undo, mount):
            print(line, flush=True)
        print(f"\n{mount.status_table()}\n")


def read_twice(mount: TmemfsMount, source: Path, count: int | None, size: int | None) -> None:
    """Read the files directly, through the mount and again, each time from empty caches.

    Raises OSError where a byte is not as in the source.
    """
    files = files_below(source, count, size)
    how = forget([source], files)
    direct = read_all(source, files)
    print(f"{len(files):,} files, {direct.size / (1 << 20):.1f} MiB; before each reading, the")
    print(f"kernel's caches are dropped {how}.")
    print(f"  the source itself  {direct}")
    for title in ("first time, cold", "again"):
        forget([source, mount.path], files)
        gets, found = mount.gets()
        reading = read_all(mount.path, files)
        gets, found = (now - then for now, then in zip(mount.gets(), (gets, found), strict=True))
        hits = f"{100 * found / gets:5.1f} % of pages found in tmem" if gets else "from the kernel"
        print(f"  {title:17}  {reading}  {hits}", flush=True)
        if wrong := [file for file in files if reading.digests[file] != direct.digests[file]]:
            raise OSError(f"{len(wrong)} files are not as in the source, {wrong[0]} is one")
    print("Every byte was the same as in the source, both times.")
    memory = mount.figures()["memory"]
    ratio = memory["orig_data_size"] / max(memory["compr_data_size"], 1)
    print(f"In whole pages: {mount.memory_line()}; compressed {ratio:.2f} to 1.")


def clear_leftovers() -> None:
    """Take away what demos left behind that were killed, which nobody can undo by himself."""
    memory_limit.clear_leftovers()
    for mount in tmemfs_mounts():
        name = re.fullmatch(rf"{PREFIX}(\d+)-\w+", Path(mount.mountpoint).name)
        if name and not Path(f"/proc/{name[1]}").exists():
            print(f"Clearing away {mount.mountpoint}, of a demo that was killed.")
            unmount(Path(mount.mountpoint))


if __name__ == "__main__":
    sys.exit(main())
