"""Work that nobody waits for."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import trio

log = logging.getLogger(__name__)


def start(work: Callable[..., Awaitable[None]], *args: Any) -> None:
    """Let *work* be done by and by. An error in it is logged and hurts nobody else.

    What is not done when the mount ends is cancelled.
    """
    trio.lowlevel.spawn_system_task(_guarded, work, args)


async def _guarded(work: Callable[..., Awaitable[None]], args: tuple[Any, ...]) -> None:
    try:
        await work(*args)
    except OSError as error:
        # Whoever asks for the same will be told.
        log.debug("%s: %s", getattr(work, "__name__", work), error)
    except Exception:
        log.exception("%s failed", getattr(work, "__name__", work))
