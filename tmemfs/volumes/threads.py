"""Threads that make calls which may have to wait.

Handing a call over takes half as long as with trio's own threads, which do more: a change to a name
is hardly longer than that.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

import outcome
import trio

T = TypeVar("T")


class Threads:
    """Up to *most* threads, each started when all others are at work."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._started = 0
        self._under_way = 0
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()

    async def run(self, function: Callable[..., T], *args: Any, abandon: bool) -> T:
        """Call *function* in a thread, and return what it returns.

        If the caller is cancelled, the call is left behind if it may be *abandon*ed, else awaited.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._under_way >= self._started < self._most:
            self._start()
        call = _Call(self, function, args)
        self._under_way += 1
        self._calls.put(call)

        def abort(_: object) -> trio.lowlevel.Abort:
            if abandon:
                call.abandoned = True
                return trio.lowlevel.Abort.SUCCEEDED
            return trio.lowlevel.Abort.FAILED

        result: T = await trio.lowlevel.wait_task_rescheduled(abort)
        return result

    def close(self) -> None:
        """Let each thread end when it has nothing to do any more."""
        for _ in range(self._started):
            self._calls.put(None)

    def ended(self) -> None:
        """Note that a call is not under way any more."""
        self._under_way -= 1

    def _start(self) -> None:
        thread = threading.Thread(target=_work, args=(self._calls,), daemon=True)
        # Where the machine, or a limit, has no thread left: those that there are will do.
        with contextlib.suppress(RuntimeError) if self._started else contextlib.nullcontext():
            thread.start()
            self._started += 1


class _Call:
    """A call on its way to a thread and back, for the task that makes it."""

    __slots__ = ("_args", "_function", "_task", "_threads", "_token", "abandoned")

    def __init__(
        self, threads: Threads, function: Callable[..., Any], args: tuple[Any, ...]
    ) -> None:
        self._threads = threads
        self._function = function
        self._args = args
        self._task = trio.lowlevel.current_task()
        self._token = trio.lowlevel.current_trio_token()
        self.abandoned = False

    def make(self) -> None:
        """Make the call, in a thread."""
        result = outcome.capture(self._function, *self._args)
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._finish, result)

    def _finish(self, result: outcome.Outcome[Any]) -> None:
        self._threads.ended()
        if not self.abandoned:
            trio.lowlevel.reschedule(self._task, result)


def _work(calls: SimpleQueue[_Call | None]) -> None:
    while (call := calls.get()) is not None:
        call.make()
        del call  # with what it was given, and what came of it
