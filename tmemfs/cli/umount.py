"""`tmemfs umount`: says who is in the way, and returns when the daemon has really gone."""

from __future__ import annotations

import argparse
import errno
import math
import os
import select
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from tmemfs import system
from tmemfs.cli import holders, locks
from tmemfs.cli.figures import find_mount, read_figures
from tmemfs.cli.holders import Holder, find_holders
from tmemfs.cli.parser import Parser
from tmemfs.errors import MountFailure, TmemfsError, UsageError
from tmemfs.system import Mount, MountState

END_SECONDS = 30.0  # how long a daemon may take to end in order
RETRY_SECONDS = 0.1

_EPILOG = """\
exit codes, as of umount(8):
  0  it is unmounted, and its daemon has ended
  1  not permitted
  2  wrong usage
  8  interrupted
 32  it is in use, was not mounted, or its daemon did not end in time
"""


def parser() -> Parser:
    """The command line of the command."""
    made = Parser(
        "tmemfs umount",
        "Take the tmemfs mount at MOUNTPOINT away, and wait until its daemon has ended. Where it\n"
        "is in use, name every process, loop device and mount that holds it.",
        _EPILOG,
    )
    made.add_argument("mountpoint", metavar="MOUNTPOINT", help="where it is mounted")
    made.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=float,
        help="how long to wait for those who hold it, and then for the daemon; by default not at "
        f"all for the former and {END_SECONDS:g} seconds for the latter",
    )
    made.add_argument(
        "-l",
        "--lazy",
        action="store_true",
        help="take it out of sight at once, even if it is in use; the daemon goes on serving those "
        "who hold it, and nothing is waited for",
    )
    return made


def run(arguments: argparse.Namespace) -> int:
    """Unmount; 0 when it is done."""
    timeout = arguments.timeout
    if timeout is not None and not (math.isfinite(timeout) and timeout >= 0):
        raise UsageError(f"--timeout: {timeout} is not a number of seconds, 0 or more")
    place = system.canonical_path(arguments.mountpoint)
    # Or swap would be turned on after it was looked for, or a mount made in the place of a stale
    # one; an unmount that is refused where it is in use needs no lock.
    with locks.locked(place):
        mount = find_mount(place)
        os.chdir("/")  # this process must not be who holds it
        state = system.probe(place)
        if arguments.lazy or state is MountState.STALE:
            _put_out_of_sight(mount, stale=state is MountState.STALE)
            return 0
    take_away(mount, state, timeout or 0.0, END_SECONDS if timeout is None else timeout)
    return 0


def _put_out_of_sight(mount: Mount, *, stale: bool) -> None:
    """Unmount what may be in use. Raises MountFailure where it is in use as swap.

    What is swapped out would be out of reach, too.
    """
    holders.refuse_swap(mount, stale=stale)
    found = [] if stale else find_holders(mount)
    system.unmount(mount.mountpoint, lazy=True)
    if stale:
        _say(f"{mount.mountpoint}: cleared away a stale mount whose daemon was gone")
    _name(found)


def take_away(mount: Mount, state: MountState, held: float, ending: float = END_SECONDS) -> None:
    """Unmount, and return when the daemon has ended; each is given that many seconds.

    Raises MountFailure where it is in use, after naming who holds it, or does not end in time.
    """
    with _daemon_of(mount, state) as daemon:
        _unmount_waiting(mount, held)
        if daemon is not None:
            _await_end(mount, daemon, ending)


@contextmanager
def _daemon_of(mount: Mount, state: MountState) -> Iterator[int | None]:
    """A pidfd of the daemon, so that its end can be awaited; None, and a warning, without it.

    Opened while the mount is there: afterwards the number could be another process's.
    """
    try:
        if state is MountState.SILENT:
            raise MountFailure(f"{mount.mountpoint}: the daemon does not answer")
        daemon = os.pidfd_open(int(read_figures(mount)["pid"]))
    except (TmemfsError, OSError, LookupError, TypeError, ValueError) as exc:
        reason = exc if isinstance(exc, TmemfsError) else f"{mount.mountpoint}: {exc!r}"
        _say(f"{reason}; the end of the daemon cannot be awaited")
        yield None
    else:
        try:
            yield daemon
        finally:
            os.close(daemon)


def _unmount_waiting(mount: Mount, seconds: float) -> None:
    """Unmount; who is in the way is named once, and waited for."""
    deadline = time.monotonic() + seconds
    named = False
    while True:
        try:
            return system.unmount(mount.mountpoint)
        except OSError as exc:
            if exc.errno != errno.EBUSY:
                raise
        left = deadline - time.monotonic()
        if not named:
            _name(find_holders(mount))
            named = True
        if left <= 0:
            raise MountFailure(_busy_message(mount, seconds))
        time.sleep(min(RETRY_SECONDS, left))


def _busy_message(mount: Mount, seconds: float) -> str:
    still = f"still in use after {seconds:g} seconds" if seconds else "in use"
    return f"{mount.mountpoint}: is {still}; end what holds it, or use --timeout or --lazy"


def _await_end(mount: Mount, daemon: int, seconds: float) -> None:
    """Wait until the daemon behind the pidfd has ended."""
    poll = select.poll()
    poll.register(daemon, select.POLLIN)
    if not poll.poll(seconds * 1000):
        raise MountFailure(
            f"{mount.mountpoint}: is unmounted, but its daemon did not end within {seconds:g} "
            f"seconds; {_why_it_goes_on(mount)}"
        )


def _why_it_goes_on(mount: Mount) -> str:
    for process, other in system.mounts_of(mount.device):
        if process is None:
            return f"it goes on, since it is mounted at {other.mountpoint} as well"
        return f"it goes on while the mount namespace of process {process} has the mount"
    unseen = "" if os.geteuid() == 0 else ", or a mount namespace of somebody else has the mount"
    return f"it is still writing out what it was given, or waits for its source{unseen}"


def _name(holders: Iterable[Holder]) -> None:
    for holder in holders:
        _say(str(holder))


def _say(line: str) -> None:
    print(f"tmemfs: {line}", file=sys.stderr)
