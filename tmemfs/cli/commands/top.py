"""`tmemfs top`: what goes on in all mounts, again and again."""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import math
import sys
import time
from collections.abc import Iterable, Sequence

from tmemfs.cli.figures import find_mount, visible_mounts
from tmemfs.cli.interrupts import undoing
from tmemfs.cli.output import table, topcolumns
from tmemfs.cli.output.watching import Seen, Watch
from tmemfs.cli.parser import Parser
from tmemfs.errors import SystemFailure, TmemfsError, UsageError
from tmemfs.linux import system

_DELAY = 2.0
_SHORTEST = 0.1

_EPILOG = f"""\
columns (EPH to ATE/s are of the mount as a whole):
{topcolumns.explain()}

Rates and HIT% are of the time since the last look. On a terminal, the memory of a mount is a bar,
and q or Ctrl-C ends.

exit codes:
  0  ended by q, Ctrl-C or --iterations
  2  wrong usage, or the package rich is missing, which draws on terminals: --batch needs none
 32  nothing is mounted at MOUNTPOINT
"""


def parser() -> Parser:
    """The command line of the command."""
    made = Parser(
        "tmemfs top", "Show what goes on in the mount at MOUNTPOINT, or in all, live.", _EPILOG
    )
    made.add_argument("mountpoint", metavar="MOUNTPOINT", nargs="?", help="where it is mounted")
    made.add_argument(
        "-d",
        "--delay",
        metavar="SECONDS",
        type=float,
        default=_DELAY,
        help=f"time between two looks; default {_DELAY:g}",
    )
    made.add_argument(
        "-n", "--iterations", metavar="N", type=int, help="end after N looks; default never"
    )
    made.add_argument(
        "-b",
        "--batch",
        action="store_true",
        help="print plain lines, for a log; so it is, too, where the output is no terminal",
    )
    return made


def run(arguments: argparse.Namespace) -> int:
    """Show it until somebody wants no more."""
    delay, count = arguments.delay, arguments.iterations
    if not (math.isfinite(delay) and delay >= _SHORTEST):
        raise UsageError(f"--delay: {delay:g} is not a number of seconds from {_SHORTEST:g} on")
    if count is not None and count < 1:
        raise UsageError(f"--iterations: {count} is not a number of times")
    batch = arguments.batch or not sys.stdout.isatty()
    if not batch and importlib.util.find_spec("rich") is None:
        raise SystemFailure(
            "the package rich is missing: pip install 'tmemfs[top]', or use --batch"
        )
    looks = _Looks(arguments.mountpoint, delay)
    times: Iterable[int] = itertools.count() if count is None else range(count)
    try:
        with undoing():
            (_print if batch else _draw)(looks, times)
    except KeyboardInterrupt:
        pass  # as good an end as any
    return 0


class _Looks:
    """All mounts, or one, looked at every `delay` seconds."""

    def __init__(self, mountpoint: str | None, delay: float) -> None:
        self.delay = delay
        self._place = None if mountpoint is None else system.canonical_path(mountpoint)
        self._watch = Watch(self._mounts)
        self._mounts()

    def look(self) -> list[Seen]:
        """What there is to see now."""
        try:
            return self._watch.look()
        except TmemfsError as exc:  # the mount has gone, and may come back
            return [Seen(self._place or "", {}, exc)]

    def _mounts(self) -> list[system.Mount]:
        return visible_mounts() if self._place is None else [find_mount(self._place)]


def _print(looks: _Looks, times: Iterable[int]) -> None:
    looks.look()  # what the first rates are taken from
    for _ in times:
        time.sleep(looks.delay)
        sys.stdout.write(_plain(looks.look()))
        sys.stdout.flush()


def _plain(seen: Sequence[Seen]) -> str:
    """A look as text: the time, a table, and a line for each mount that has no figures."""
    rows = [row for mount in seen for row in mount.rows()]
    failures = [f"{mount.failure}\n" for mount in seen if mount.failure is not None]
    when = time.strftime("%Y-%m-%d %H:%M:%S")
    text = table.as_table(topcolumns.ALL, rows, headings=True, in_bytes=False)
    return f"{when}\n{text}{''.join(failures)}\n"


def _draw(looks: _Looks, times: Iterable[int]) -> None:
    from tmemfs.cli.output import topview  # rich takes its time to load

    with topview.screen() as screen:
        for _ in times:
            screen.show(looks.look(), looks.delay)
            if screen.wait(looks.delay):
                break
