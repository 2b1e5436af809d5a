"""Mounts that are looked at again and again, whatever becomes of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from tmemfs.cli.figures import Figures, Question, volumes_of
from tmemfs.cli.output.columns import Row
from tmemfs.cli.output.rates import with_rates
from tmemfs.errors import MountFailure, TmemfsError
from tmemfs.linux.system import Mount

_TIMEOUT_S = 2.0  # seconds that a look may be late because of those who do not answer


@dataclass(frozen=True, slots=True)
class Seen:
    """A mount as it was seen last: its figures with rates, or why there are none."""

    mountpoint: str
    figures: Figures
    failure: TmemfsError | None = None

    def rows(self) -> list[Row]:
        """A row for each pool."""
        volumes = volumes_of(self.figures)
        return [
            Row(self.mountpoint, self.figures, pool, volumes.get(pool.get("name"), {}))
            for pool in self.figures.get("pools", [])
        ]


class Watch:
    """Looks at the mounts that `mounts()` returns each time; it may raise a TmemfsError."""

    def __init__(self, mounts: Callable[[], list[Mount]]) -> None:
        self._mounts = mounts
        # A daemon that does not answer is not asked again: each question that waits has a thread.
        self._questions: dict[int, Question] = {}
        self._before: dict[int, Figures] = {}

    def look(self) -> list[Seen]:
        """All of them as they are now. Who does not answer is waited for once, not at each look."""
        mounts = self._mounts()
        known = {mount.mount_id for mount in mounts}
        for mine in (self._questions, self._before):
            for gone in mine.keys() - known:
                del mine[gone]
        late = set(self._questions)
        for mount in mounts:
            if mount.mount_id not in late:
                self._questions[mount.mount_id] = Question(mount)
        deadline = time.monotonic() + _TIMEOUT_S
        return [self._look_at(m, 0.0 if m.mount_id in late else deadline) for m in mounts]

    def _look_at(self, mount: Mount, deadline: float) -> Seen:
        number = mount.mount_id
        question = self._questions[number]
        try:
            figures = question.answer(max(deadline - time.monotonic(), 0.0))
        except TmemfsError as exc:
            if not question.under_way:
                del self._questions[number]
            return Seen(mount.mountpoint, {}, exc)
        del self._questions[number]
        before, self._before[number] = self._before.get(number), figures
        try:
            return Seen(mount.mountpoint, with_rates(before, figures))
        except (LookupError, TypeError):
            failure = MountFailure(f"{mount.mountpoint}: the figures of its daemon make no sense")
            return Seen(mount.mountpoint, {}, failure)
