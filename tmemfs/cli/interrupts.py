"""Signals that end a program only where it can be ended, and its undoing nowhere.

with undoing() as undo:
    with undo.held():                    # a step that changes the machine: whole, or not at all
        mount()
        undo.callback(unmount)
    work()                               # a signal ends this, and then all is undone
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """The signal `number` came. No Exception: nobody is to take it for a failure and go on."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Undo(ExitStack):
    """An ExitStack that knows when a signal may raise `Interrupted` and when it has to wait."""

    _held = 0
    _pending: int | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let signals wait until the context ends."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            self._deliver()

    def signal(self, number: int, frame: FrameType | None = None) -> None:
        """Take note of a signal; raises `Interrupted` now or at the end of `held`."""
        self._pending = number
        self._deliver()

    @property
    def pending(self) -> bool:
        """Whether a signal waits to be told of."""
        return self._pending is not None

    def forget(self) -> None:
        """Be done with a signal that waits: something else tells of it."""
        self._pending = None

    def hold(self) -> None:
        """Let signals wait for ever: from here on, things are undone."""
        self._held += 1

    def _deliver(self) -> None:
        if self._pending is not None and not self._held:
            number, self._pending = self._pending, None
            raise Interrupted(number)


@contextmanager
def undoing() -> Iterator[Undo]:
    """Yield the stack of what is to be undone, and undo it, in reverse order, whatever happens.

    One step's failure does not keep the others from being undone.
    """
    undo = Undo()
    before = {number: signal.signal(number, undo.signal) for number in SIGNALS}
    try:
        with undo:
            try:
                yield undo
            finally:
                undo.hold()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
