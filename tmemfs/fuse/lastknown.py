"""Answers about the root of a mount, the last known ones where the source does not answer.

The way to every figure and to every swap volume leads through the root: for each path the kernel
asks for its attributes again, and whoever wants to know whether the mount lives asks for statfs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import trio

from tmemfs import supervise

T = TypeVar("T")

_TIMEOUT_S = 1.0  # seconds


class LastKnown(Generic[T]):
    """The last answer to *question*, for when the next one is late, or an error.

    An error of the source (it is dead: ENOTCONN) would be taken for one of ours, and the mount for
    one whose daemon has gone.
    """

    def __init__(self, question: Callable[[], Awaitable[T]]) -> None:
        self._question = question
        self._answer: T | None = None
        self._late = False

    async def ask(self) -> T:
        """Return the answer, an older one instead of none. Raises the question's first errors."""
        if not self._late:
            with trio.move_on_after(_TIMEOUT_S):
                try:
                    self._answer = await self._question()
                except OSError:
                    if self._answer is None:
                        raise
                return self._answer
        if self._answer is None:
            return await self._question()
        if not self._late:
            # One more of them waits, not one for each who asks: each takes a thread.
            self._late = True
            supervise.start(self._await_answer)
        return self._answer

    async def _await_answer(self) -> None:
        try:
            with contextlib.suppress(OSError):
                self._answer = await self._question()
        finally:
            self._late = False
