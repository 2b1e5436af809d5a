"""`tmemfs warm`: reads files into the pool of their mount, past the kernel's own cache."""

from __future__ import annotations

import argparse
import errno
import mmap
import os
import queue
import threading
from contextlib import suppress

from tmemfs.cli.figures import Figures, count_of_files, kept, read_figures
from tmemfs.cli.interrupts import undoing
from tmemfs.cli.output.progress import Progress, progress
from tmemfs.cli.parser import Parser
from tmemfs.cli.paths import File, files_below, find_target
from tmemfs.errors import UsageError
from tmemfs.linux.system import Mount
from tmemfs.units import format_size

_BLOCK = 1 << 20
_JOBS = 4
_MOST_JOBS = 256
_END_SECONDS = 2.0  # a read that waits for a slow source is not waited for

_EPILOG = """\
What is read goes into the pool of the mount, not into the kernel's cache, and what is there already
costs the source nothing. Where the budget is too small for it, what was read first gives way.

exit codes:
  0  everything was read
  1  there were files that could not be read, which are named
  2  wrong usage, or a PATH that is on no tmemfs mount
  8  interrupted
"""


def parser() -> Parser:
    """The command line of the command."""
    made = Parser(
        "tmemfs warm",
        "Read the files PATH, and all files below directories, so that they are in memory when\n"
        "they are needed.",
        _EPILOG,
    )
    made.add_argument("paths", metavar="PATH", nargs="+", help="a file or a directory of a mount")
    made.add_argument(
        "-j",
        "--jobs",
        metavar="N",
        type=int,
        default=_JOBS,
        help=f"how many files to read at the same time; default {_JOBS}",
    )
    made.add_argument("-q", "--quiet", action="store_true", help="show no progress, and no sum")
    return made


def run(arguments: argparse.Namespace) -> int:
    """Read; 1 where some file could not be."""
    if not 1 <= arguments.jobs <= _MOST_JOBS:
        raise UsageError(f"--jobs: {arguments.jobs} is not from 1 to {_MOST_JOBS}")
    targets = [find_target(path) for path in arguments.paths]
    before = {target.mount: read_figures(target.mount) for target in targets}
    with (
        undoing() as undo,
        progress("warming", sizes=True, quiet=arguments.quiet) as bar,
    ):
        readers = Readers(arguments.jobs, bar)
        undo.callback(readers.stop)
        for target in targets:
            for file in files_below(target, bar.failed):
                bar.expect(file.size)
                readers.files.put(file)
        readers.finish()
    if not arguments.quiet:
        print(f"{count_of_files(readers.count)} read, {format_size(readers.bytes)}")
        for mount, figures in before.items():
            _tell_of_eviction(mount, figures)
    return int(bar.failures > 0)


class Readers:
    """Threads that read the files put into `files`, until told to `finish` or to `stop`."""

    def __init__(self, jobs: int, bar: Progress) -> None:
        self.files: queue.Queue[File | None] = queue.Queue(4 * jobs)
        self.bytes = 0
        self.count = 0
        self._bar = bar
        self._lock = threading.Lock()
        self._stopped = False
        # They do not keep the process alive: nobody can take back a read that waits.
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(jobs)]
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """Wait until all that was put is read."""
        for _ in self._threads:
            self.files.put(None)
        for thread in self._threads:
            thread.join()

    def stop(self) -> None:
        """Read no more, and give those who are reading some time to come to an end."""
        self._stopped = True
        with suppress(queue.Empty):
            while True:
                self.files.get_nowait()
        for _ in self._threads:
            self.files.put(None)
        for thread in self._threads:
            thread.join(_END_SECONDS / len(self._threads))

    def _run(self) -> None:
        # A mapping, because direct I/O may want its memory aligned.
        with mmap.mmap(-1, _BLOCK) as buffer:
            while not self._stopped and (file := self.files.get()) is not None:
                try:
                    self._read(file, buffer)
                except OSError as exc:
                    self._bar.failed(OSError(exc.errno, exc.strerror, file.path))

    def _read(self, file: File, buffer: mmap.mmap) -> None:
        fd, direct = _open(file.path)
        done = 0
        try:
            while not self._stopped and (size := os.preadv(fd, [buffer], done)):
                if not direct:
                    os.posix_fadvise(fd, done, size, os.POSIX_FADV_DONTNEED)
                done += size
                self._bar.advance(size)
        finally:
            os.close(fd)
            # It may have grown or shrunk since it was found, or not have been read to its end.
            self._bar.expect(done - file.size)
            with self._lock:
                self.bytes += done
                self.count += 1


def _open(path: str) -> tuple[int, bool]:
    """Open a file so that its pages do not go into the kernel's cache, if that can be."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        return os.open(path, flags | os.O_DIRECT), True
    except OSError as exc:
        if exc.errno != errno.EINVAL:
            raise
    return os.open(path, flags), False


def _tell_of_eviction(mount: Mount, before: Figures) -> None:
    after = read_figures(mount)
    pages = after["reclaim"]["evicted_pgs"] - before["reclaim"]["evicted_pgs"]
    if pages:
        [size] = {pool["page_size"] for pool in after["pools"] if pool["kind"] == "ephemeral"}
        budget, gone = format_size(after["memory"]["mem_limit"]), format_size(pages * size)
        left = format_size(kept(after)[1])
        print(f"{mount.mountpoint}: full with {budget}: {gone} gave way, {left} are kept")
