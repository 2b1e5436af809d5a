"""`tmemfs swapoff`: everything back into memory, then the device, the mount and its daemon go."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time

from tmemfs.cli.interrupts import undoing
from tmemfs.cli.parser import Parser
from tmemfs.cli.system import readback, swaptools, swapvolume
from tmemfs.cli.system.swapvolume import Volume
from tmemfs.errors import SwapFailure
from tmemfs.linux import loops, system
from tmemfs.linux.blockdevices import Number
from tmemfs.linux.loops import Loop, SwapDevice
from tmemfs.linux.system import MountState
from tmemfs.units import format_size

DEAD_SECONDS = 60.0  # swapoff of a device whose daemon is gone takes much less
DEAD_TRIES = 5
_PAUSE_SECONDS = 0.5

_EPILOG = f"""\
Whatever is swapped out has to come back into memory, so it is refused where that has not as much
room. (A program in a memory cgroup whose limit has no room for what comes back is ended by the OOM
killer; raise the limit first.) It can be interrupted: the swap stays on, whole, and the command can
be run again. Then the loop device is taken away and, of a volume that 'tmemfs swapon' gave a mount
of its own, the mount below {swapvolume.PRIVATE} with its daemon. An overflow file stays.

When the daemon was killed, what was swapped out is lost: processes that had pages in it are ended
by SIGBUS when they touch one. --force then clears away the swap, the device and the mount.

exit codes:
  0  it is off
  1  not permitted
  2  wrong usage
  8  interrupted; it is still on
 32  it could not be turned off
"""


def parser() -> Parser:
    """The command line of the command."""
    made = Parser(
        "tmemfs swapoff",
        "Take the swap volume NAME out of use, and undo what 'tmemfs swapon' did.",
        _EPILOG,
    )
    made.add_argument("name", metavar="NAME", help="what the volume is called")
    made.add_argument(
        "--mountpoint", metavar="DIR", help="the mount that has it, if not one of its own"
    )
    made.add_argument(
        "--anyway",
        action="store_true",
        help="even if memory has no room for what is swapped out; the OOM killer may make some",
    )
    made.add_argument(
        "--force",
        action="store_true",
        help="also if the daemon is gone, and what was swapped out with it",
    )
    made.add_argument("-v", "--verbose", action="store_true", help="say each step")
    return made


def run(arguments: argparse.Namespace) -> int:
    """Turn the swap off; 0 when nothing is left of it."""
    swapvolume.check_root()
    name, where = arguments.name, arguments.mountpoint
    volume = swapvolume.in_use(name, where)
    state = swapvolume.state(volume)
    if state is MountState.SILENT:
        raise SwapFailure(
            f"{volume.mountpoint}: the daemon does not answer, and swapoff would wait for it; if "
            "it is stopped, let it go on (kill -CONT), if it is stuck, end it (kill -9) and use "
            "--force, which loses what is swapped out"
        )
    os.chdir("/")  # this process must not be who holds the mount
    if state is MountState.STALE:
        with volume.locked():
            _clear_away(volume, force=arguments.force)
        return 0
    if not volume.loops() and not volume.private:
        raise SwapFailure(f"{name}: no loop device is on {volume.file}")
    # Takes as long as it takes; who comes meanwhile sees that it is on, and need not wait.
    for swap in volume.swaps():
        if not arguments.anyway:
            check_room(swap)
        readback.read_back(volume, swap)
        _note(arguments.verbose, f"{swap.device} is no swap any more")
    if swapvolume.state(volume) is MountState.STALE:
        _note(True, f"{name}: the daemon ended meanwhile; what had not come back by then is lost")
    # What comes now takes no time, and half of it is of no use.
    with volume.locked(), undoing() as undo, undo.held():
        for loop in volume.loops():
            _refuse_swap(loop)
            if not volume.private:
                swaptools.discard(loop)
            swaptools.detach(loop)
        if volume.private:
            swapvolume.take_mount_away(volume)
            volume.remove_directory()
            _note(arguments.verbose, f"{volume.mountpoint} is unmounted, its daemon has ended")
    if volume.hidden is not None:
        _say_where_it_is(volume, volume.hidden)
    return 0


def _say_where_it_is(volume: Volume, filesystem: Number) -> None:
    """Name the mount that stays; one that was taken away lazily has ended with its last user."""
    for process, mount in system.mounts_of(filesystem):
        if process is not None:
            inside = f"nsenter --target {process} --mount tmemfs umount"
            _note(
                True,
                f"{volume.name}: is off; its mount stays, in the namespace of process {process}: "
                f"'{inside} {shlex.quote(mount.mountpoint)}'",
            )


def _refuse_swap(loop: Loop) -> None:
    """Raise SwapFailure where somebody has turned it on again meanwhile."""
    for swap in loops.swaps_on(loop):
        raise SwapFailure(f"{swap.device}: is swap again, and stays")


def check_room(swap: SwapDevice) -> None:
    """Raise SwapFailure where what is on `swap` fits neither into memory nor other swap."""
    others = [other for other in loops.swap_devices().values() if other.device != swap.device]
    memory = system.available_memory()
    room = memory + sum(other.size - other.used for other in others)
    if swap.used > room:
        raise SwapFailure(
            f"{swap.device}: {format_size(swap.used)} are swapped out, and memory and other swap "
            f"have {format_size(room)} free; end some programs, or use --anyway"
        )


# --- the daemon is gone ----------------------------------------------------------------------


def _clear_away(volume: Volume, *, force: bool) -> None:
    """Take away what a daemon left behind that was killed, and say what was lost."""
    swaps = volume.swaps()
    lost = sum(swap.used for swap in swaps)
    if not force:
        raise SwapFailure(
            f"{volume.name}: the daemon is gone, and with it {format_size(lost)} that were swapped "
            f"out; 'tmemfs swapoff {volume.name} --force' clears away what is left"
        )
    with undoing() as undo, undo.held():
        for swap in swaps:
            _off_dead(swap)
        for loop in volume.loops():
            swaptools.detach(loop)
        if volume.mount is not None:
            system.unmount(volume.mountpoint, lazy=True)
        if volume.private:
            volume.remove_directory()
    what = f"{format_size(lost)} were swapped out and are lost" if lost else "nothing was lost"
    ended = "; processes that had pages there end by SIGBUS when they touch one" if lost else ""
    _note(True, f"{volume.name}: cleared away; {what}{ended}")


def _off_dead(swap: SwapDevice) -> None:
    """Turn off a swap that cannot be read: the kernel marks every page as lost, and is through.

    Even so each takes memory for a moment. Where the cgroup of a program has none, swapoff(2)
    fails and the OOM killer ends the program, so that the next try has less to do.
    """
    for left in reversed(range(DEAD_TRIES)):
        try:
            swaptools.run("swapoff", swap.device, seconds=DEAD_SECONDS)
            return
        except SwapFailure as exc:
            if not left:
                raise SwapFailure(f"{exc}; it is still on{readback.hint(str(exc))}") from None
        time.sleep(_PAUSE_SECONDS)


def _note(wanted: bool, line: str) -> None:
    if wanted:
        print(f"tmemfs: {line}", file=sys.stderr)
