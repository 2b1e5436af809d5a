"""Threads for what waits; where none can be had just now, whoever wants one waits for that, too.

How many there may be is limited from outside as well: by a cgroup (``pids.max``), by what a user
may have (``ulimit -u``), by memory. That is no reason to fail a request.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any, TypeVar

import trio

T = TypeVar("T")

log = logging.getLogger(__name__)

# Seconds until it is tried again though nobody here has given one back.
_RETRY_S = 0.05
# Seconds in which it is said once that there are too few.
_QUIET_S = 60.0


class _Threads:
    """How many calls are in threads, and what happens when one comes back."""

    def __init__(self) -> None:
        self.running = 0
        self.short = False
        """whether the last attempt to start one failed"""
        self.returned = trio.Event()
        self._told = -math.inf

    def ran_short(self) -> None:
        """Take note that one could not be started, and say so: once, not for each request."""
        self.short = True
        now = time.monotonic()
        if now - self._told >= _QUIET_S:
            log.warning("no more threads can be had (pids.max, ulimit -u): requests wait for those")
            self._told = now

    def back(self) -> None:
        """Let those go on who wait for one."""
        self.running -= 1
        if self.short:
            self.returned.set()
            self.returned = trio.Event()


_threads = _Threads()


async def run(
    function: Callable[..., T],
    *args: Any,
    limiter: trio.CapacityLimiter | None = None,
    abandon_on_cancel: bool = False,
) -> T:
    """As `trio.to_thread.run_sync`, and without an error where no thread can be started.

    Then it waits for one that comes back. Where there is none at all, the call is made in line:
    that is slow for all, but better than never.
    """
    while True:
        _threads.running += 1
        try:
            result = await trio.to_thread.run_sync(
                function, *args, limiter=limiter, abandon_on_cancel=abandon_on_cancel
            )
            _threads.short = False
            return result
        except RuntimeError as error:
            if "new thread" not in str(error):
                raise
        finally:
            _threads.back()
        _threads.ran_short()
        if not _threads.running:
            return function(*args)
        with trio.move_on_after(_RETRY_S):
            await _threads.returned.wait()
