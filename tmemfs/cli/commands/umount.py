"""`tmemfs umount`: says who is in the way, and returns when the daemon has really gone."""

from __future__ import annotations

import argparse
import math
import os

from tmemfs.cli.figures import find_mount
from tmemfs.cli.parser import Parser
from tmemfs.cli.system import holders, locks, unmounting
from tmemfs.cli.system.holders import find_holders
from tmemfs.errors import UsageError
from tmemfs.linux import system
from tmemfs.linux.system import Mount, MountState

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
        f"all for the former and {unmounting.END_SECONDS:g} seconds for the latter",
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
    ending = unmounting.END_SECONDS if timeout is None else timeout
    unmounting.take_away(mount, state, timeout or 0.0, ending)
    return 0


def _put_out_of_sight(mount: Mount, *, stale: bool) -> None:
    """Unmount what may be in use. Raises MountFailure where it is in use as swap.

    What is swapped out would be out of reach, too.
    """
    holders.refuse_swap(mount, stale=stale)
    found = [] if stale else find_holders(mount)
    system.unmount(mount.mountpoint, lazy=True)
    if stale:
        unmounting.say(f"{mount.mountpoint}: cleared away a stale mount whose daemon was gone")
    unmounting.name(found)
