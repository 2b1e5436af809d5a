"""`tmemfs drop`: lets a mount, and the kernel, forget what they keep of files."""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Sequence

from tmemfs.cli.figures import (
    count_of_files,
    kept,
    read_figures,
    refuse_read_only,
    write_control,
)
from tmemfs.cli.interrupts import undoing
from tmemfs.cli.output.progress import Progress, progress
from tmemfs.cli.parser import Parser
from tmemfs.cli.paths import File, Target, files_below, find_target
from tmemfs.linux.system import Mount
from tmemfs.units import format_size

# Files at once: each is held open meanwhile.
_SLICE = 256

_EPILOG = """\
Nothing is lost: what is dropped is in SOURCE as well. Swap volumes are left alone.

exit codes:
  0  all of it is dropped
  1  not permitted, or there were files that could not be looked at, which are named
  2  wrong usage, or a PATH that is on no tmemfs mount
  8  interrupted
 32  the mount is read-only, and so is what controls it
"""


def parser() -> Parser:
    """The command line of the command."""
    made = Parser(
        "tmemfs drop",
        "Forget the pages of the files PATH, and of all files below directories, in the mount\n"
        "and in the kernel's cache. A mountpoint means everything, and is quick.",
        _EPILOG,
    )
    made.add_argument("paths", metavar="PATH", nargs="+", help="a file or a directory of a mount")
    made.add_argument("-q", "--quiet", action="store_true", help="show no progress, and no sum")
    return made


def run(arguments: argparse.Namespace) -> int:
    """Drop; 1 where some file could not be."""
    targets = [find_target(path) for path in arguments.paths]
    for target in targets:
        refuse_read_only(target.mount)
    before = {target.mount: kept(read_figures(target.mount)) for target in targets}
    with undoing(), progress("dropping", sizes=False, quiet=arguments.quiet) as bar:
        for target in targets:
            if target.is_root:
                write_control(target.mount, "drop", "all")
            else:
                _drop(target, bar)
    if not arguments.quiet:
        gone = [_difference(was, kept(read_figures(mount))) for mount, was in before.items()]
        files, size = (sum(counts) for counts in zip(*gone, strict=True))
        print(f"{count_of_files(files)} dropped, {format_size(size)} of pages")
    return int(bar.failures > 0)


def _difference(before: tuple[int, int], after: tuple[int, int]) -> tuple[int, int]:
    """What is less now; what others have read meanwhile may make it less than nothing."""
    return max(before[0] - after[0], 0), max(before[1] - after[1], 0)


def _drop(target: Target, bar: Progress) -> None:
    files = files_below(target, bar.failed)
    while part := list(itertools.islice(files, _SLICE)):
        bar.expect(len(part))
        _drop_some(target.mount, part, bar)
        bar.advance(len(part))


def _drop_some(mount: Mount, files: Sequence[File], bar: Progress) -> None:
    """Drop files while they are held, so that the kernel, and so the daemon, knows them."""
    held: list[int] = []
    try:
        for file in files:
            try:
                held.append(os.open(file.path, os.O_PATH | os.O_NOFOLLOW))
            except OSError as exc:
                bar.failed(exc)
        if held:
            write_control(mount, "drop", "\n".join(str(os.fstat(fd).st_ino) for fd in held))
    finally:
        for fd in held:
            os.close(fd)
