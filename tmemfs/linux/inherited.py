"""Lifts what a daemon inherits from the shell or service that starts it, and must not be held to.

Limits of a user's session are for what the user runs in it. A daemon serves others, for longer.
"""

from __future__ import annotations

import fcntl
import os
import resource
import signal

from tmemfs.errors import SystemFailure

# The kernel's table of descriptors has room for so many from the start.
_TABLE = 1 << 16

# A mount needs some dozen for itself, and some for each call that is under way.
_FEWEST = 64

# What ends the daemon, or has it fail for others.
_LIFTED = {
    resource.RLIMIT_CPU: "ulimit -t",
    resource.RLIMIT_FSIZE: "ulimit -f",
}


def lift_limits() -> list[str]:
    """Raise the limits that would end the daemon later, and let signals through.

    Returns a line for each that stays: only root (CAP_SYS_RESOURCE) raises a hard limit.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    left = []
    for limit, name in _LIFTED.items():
        _, hard = resource.getrlimit(limit)
        try:
            resource.setrlimit(limit, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        except ValueError:
            resource.setrlimit(limit, (hard, hard))
            left.append(f"held to a limit of whoever started it, for all users ({name})")
    return left


def lift_descriptors() -> int:
    """Raise the limit of descriptors (RLIMIT_NOFILE) as far as it goes; return it.

    Raises SystemFailure where it is too low for a mount to be of use.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < _FEWEST:
        raise SystemFailure(
            f"{hard} descriptors are too few; raise 'ulimit -n' to {_FEWEST} or more"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # The kernel's table of them doubles as it fills. In a process with threads whoever opens one
    # too many waits for that, 4 to 12 ms: the thread that serves. So it is large from the start.
    os.close(fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, min(hard, _TABLE) - 1))
    return hard
