"""Work that no error may end, and the one place where errors of ours are counted.

One process serves one mount, for everybody who uses it. An error that nobody has thought of
concerns whoever asked for the work in which it happened, and no one else: it is noted, and
everything else goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import trio

log = logging.getLogger(__name__)

# Seconds before work that failed is tried again: at first, and at most.
_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 5.0


class Failsafe:
    """How often there was an error that nobody has thought of, and the last one."""

    def __init__(self) -> None:
        self.count = 0
        self.last: str | None = None

    def note(self, where: str, error: Exception, message: str = "%s failed") -> None:
        """Count one *error*, and log it with its traceback; *message* has a place for *where*.

        Never raises: whoever notes an error has nobody to tell of another one.
        """
        self.count += 1
        # Memory may be what is missing.
        with suppress(Exception):
            self.last = f"{where}: {type(error).__name__}: {error}"
            log.error(message, where, exc_info=error)

    def statistics(self) -> dict[str, Any]:
        """Return ``count`` and ``last``."""
        return {"count": self.count, "last": self.last}


failsafe = Failsafe()
"""that of this process"""


async def keep(work: Callable[..., Awaitable[None]], *args: Any) -> None:
    """Do *work*, again and again for as long as it fails, with pauses that grow."""
    pause = _PAUSE_S
    while True:
        began = trio.current_time()
        try:
            await work(*args)
            return
        except Exception as error:
            failsafe.note(_name(work), error, "%s failed and is tried again")
        if trio.current_time() - began > _LONGEST_PAUSE_S:
            pause = _PAUSE_S  # it had been all right for a while
        await trio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_S)


def start(work: Callable[..., Awaitable[None]], *args: Any) -> None:
    """Let *work* be done once, behind everybody's back. An error in it hurts nobody else.

    What is not done when the mount ends is cancelled.
    """
    trio.lowlevel.spawn_system_task(_once, work, args)


async def _once(work: Callable[..., Awaitable[None]], args: tuple[Any, ...]) -> None:
    try:
        await work(*args)
    except OSError as error:
        # Whoever asks for the same will be told.
        log.debug("%s: %s", _name(work), error)
    except Exception as error:
        failsafe.note(_name(work), error)


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error in a group of a nursery's."""
    error = group.exceptions[0]
    return first_error(error) if isinstance(error, BaseExceptionGroup) else error


def _name(work: Callable[..., Any]) -> str:
    return getattr(work, "__qualname__", repr(work))
