"""A request that lacks a descriptor lets go of those that it has, waits, and begins again.

If it kept them while it waits, many could wait for one another for ever.
"""

from __future__ import annotations

import errno
import logging
import math
import os
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from tmemfs.cachefs.backingfiles import TooManyOpen

R = TypeVar("R")

log = logging.getLogger(__name__)

# Requests that try again at once: more would take from one another what each needs.
_AT_ONCE = 4
_RETRY_S = 0.05
# Seconds for which there have been descriptors, and a request has got none: then it is the source
# that has none, and says so.
_TIMEOUT_S = 2.0
# Seconds in which it is said once.
_QUIET_S = 60.0


def lacks_descriptor(error: OSError) -> bool:
    """Whether *error* is that this process, or the system, had no descriptor left."""
    return error.errno in (errno.EMFILE, errno.ENFILE) and not isinstance(error, TooManyOpen)


class Shortage:
    """Makes those requests again that have failed for want of a descriptor, a few at once."""

    def __init__(self) -> None:
        self._turns = trio.CapacityLimiter(_AT_ONCE)
        self._told = -math.inf

    async def again(self, request: Callable[[], Awaitable[R]]) -> R:
        """Make *request* until it gets what it needs; one that fails must have changed nothing."""
        now = trio.current_time()
        if now - self._told >= _QUIET_S:
            log.warning("no more descriptors can be had (ulimit -n): requests wait for those")
            self._told = now
        until = math.inf
        async with self._turns:
            while True:
                await trio.sleep(_RETRY_S)
                try:
                    return await request()
                except OSError as error:
                    now = trio.current_time()
                    until = min(until, now + _TIMEOUT_S) if _has_descriptor() else math.inf
                    if not lacks_descriptor(error) or now >= until:
                        raise


def _has_descriptor() -> bool:
    """Whether one could be had just now."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return False
    return True
