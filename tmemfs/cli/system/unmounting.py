"""Taking a mount away: who is in the way is named, and the end of its daemon awaited."""

from __future__ import annotations

import errno
import os
import select
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from tmemfs.cli.figures import read_figures
from tmemfs.cli.system.holders import Holder, find_holders
from tmemfs.errors import MountFailure, TmemfsError
from tmemfs.linux import system
from tmemfs.linux.system import Mount, MountState

END_SECONDS = 30.0  # how long a daemon may take to end in order
RETRY_SECONDS = 0.1


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
        say(f"{reason}; the end of the daemon cannot be awaited")
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
            name(find_holders(mount))
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


def name(holders: Iterable[Holder]) -> None:
    """Name each of *holders*."""
    for holder in holders:
        say(str(holder))


def say(line: str) -> None:
    """Tell on stderr what is not the answer."""
    print(f"tmemfs: {line}", file=sys.stderr)
