"""What a process is doing just now: every task and every thread, with where it waits, as text.

For whoever finds at night that a mount answers slowly: ``kill -USR1`` of the daemon logs it.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from types import CoroutineType, FrameType
from typing import Any

import trio

log = logging.getLogger(__name__)

# Tasks that wait at the same place are told once, with their number.
_FRAMES = 12


def on_signal(number: int = signal.SIGUSR1) -> None:
    """Log all tasks and threads whenever the signal *number* comes. For the main thread."""
    signal.signal(number, _log_everything)


def tasks(root: trio.lowlevel.Task) -> Iterator[str]:
    """Yield a paragraph for each place where tasks below *root* wait, the most crowded first."""
    places: dict[str, list[str]] = {}
    waiting = [root]
    while waiting:
        task = waiting.pop()
        for nursery in task.child_nurseries:
            waiting += nursery.child_tasks
        places.setdefault("\n".join(_where(task.coro)), []).append(task.name)
    for place, names in sorted(places.items(), key=lambda item: -len(item[1])):
        yield f"{len(names)} x {names[0]}\n{place}"


def threads() -> Iterator[str]:
    """Yield a paragraph for each thread of Python's."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        stack = traceback.extract_stack(frame)[-_FRAMES:]
        lines = [f"    {_place(each.filename, each.lineno)} {each.name}" for each in stack]
        yield "\n".join([names.get(ident, str(ident)), *lines])


def _where(coroutine: Any) -> Iterator[str]:
    """The lines at which a coroutine waits, from the outside in."""
    for _ in range(_FRAMES):
        if not isinstance(coroutine, CoroutineType) or coroutine.cr_frame is None:
            return
        code = coroutine.cr_frame.f_code
        yield f"    {_place(code.co_filename, coroutine.cr_frame.f_lineno)} {code.co_qualname}"
        coroutine = coroutine.cr_await


def _place(file: str, line: int | None) -> str:
    """A line of code, by what is left of the path when what depends on the machine is cut off."""
    return f"{'/'.join(file.split('/')[-2:])}:{line}"


def _log_everything(number: int, frame: FrameType | None) -> None:
    log.warning("what goes on, asked for by %s", signal.Signals(number).name)
    try:
        root = trio.lowlevel.current_root_task()
    except RuntimeError:  # trio does not run yet, or not any more
        root = None
    for paragraph in tasks(root) if root is not None else ():
        log.warning("task: %s", paragraph)
    for paragraph in threads():
        log.warning("thread: %s", paragraph)
