"""Decides which task reads the next request: one reads, others are at work, or spare.

pyfuse3 lets a second task read as soon as the first one has a request, and passes the right to read
from task to task, each time around trio's loop. But most requests are answered without a wait. So
here the task that has got a request goes on to read the next one, and only when it has to wait, as
trio tells after the step, does a spare one read in its place:

========  ===============================================  ========================
state     what the task does                               becomes
========  ===============================================  ========================
reading   waits for a request, or has one and did not wait  at work, when it waits
at work   waits for what it needs to answer                 reading, if nobody is; spare
spare     waits to read                                     reading
========  ===============================================  ========================
"""

from __future__ import annotations

import select
from collections.abc import Callable

import trio
from trio.lowlevel import Abort, RaiseCancelT, Task

# So many tasks stay while nothing is asked: to start one takes as long as to serve a hit.
_SPARE = 8
# Requests that one task serves before all others have their turn.
_IN_A_ROW = 4


class Workers(trio.abc.Instrument):
    """Up to *most* tasks that serve what can be read from *fd*; *start* starts one more."""

    def __init__(self, fd: int, most: int, start: Callable[[], None]) -> None:
        self._fd = fd
        self._most = most
        self._start = start
        self._count = 0
        self._spare: list[Task] = []
        self._reader: Task | None = None
        self._serving: Task | None = None
        """the reader, from the moment on when it has a request until it waits"""
        self._in_a_row = 0
        self._closed = False
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)

    def start(self) -> None:
        """Start one more task, which calls `readable` again and again."""
        self._count += 1
        self._start()

    def ended(self) -> None:
        """Take note that a task has ended."""
        self._count -= 1

    def close(self) -> None:
        """Let every task end that has no request. To be called before trio is told of the end.

        A spare task that is to read, and has not begun to, would not be told.
        """
        self._closed = True
        # pyfuse3 tells those who wait for the device; this may be another file.
        trio.lowlevel.notify_closing(self._fd)

    async def readable(self) -> bool:
        """Wait until the next request is for this task; False when it is not needed any more."""
        task = trio.lowlevel.current_task()
        if task is self._serving:
            self._serving = None
        elif not await self._become_reader(task):
            return False
        try:
            events = await self._wait()
        except trio.ClosedResourceError:  # the session is to end
            self._closed = True
        if self._closed:
            self._hand_over()
            return False
        # At its end the file can be read, too, and nobody else is needed for that.
        if events & select.POLLIN and not self._spare and self._count < self._most:
            self.start()
        self._serving = task
        return True

    def after_task_step(self, task: Task) -> None:
        """See `trio.abc.Instrument`: the task has given way, or has ended."""
        if task is self._serving:
            self._serving = None
            self._hand_over()

    async def _become_reader(self, task: Task) -> bool:
        if self._reader is not None and not self._closed:
            if len(self._spare) >= _SPARE:
                return False

            def abort(_: RaiseCancelT) -> Abort:
                self._spare.remove(task)
                return Abort.SUCCEEDED

            self._spare.append(task)
            await trio.lowlevel.wait_task_rescheduled(abort)
        self._reader = task
        return True

    async def _wait(self) -> int:
        """Wait until the file can be read; return the events of poll(2)."""
        # Another request may be there already, and trio's loop would take longer than to serve it.
        if not self._closed and self._in_a_row < _IN_A_ROW and (found := self._poll.poll(0)):
            self._in_a_row += 1
            return found[0][1]
        self._in_a_row = 0
        while not self._closed:
            await trio.lowlevel.wait_readable(self._fd)
            if found := self._poll.poll(0):  # else somebody else was quicker
                return found[0][1]
        return 0

    def _hand_over(self) -> None:
        """Let a spare task read."""
        self._reader = None
        if self._spare:
            self._reader = self._spare.pop()
            trio.lowlevel.reschedule(self._reader)
