"""Names that were not there, and are not there still.

Programs look for much that there is not: `.gitignore` in each directory, a header in each of many.
Over a network that takes a journey each time, and some filesystems (sshfs) do not keep the answer.

Whoever makes a name changes the times of the directory. So a name that was not there when it was
asked for *after* these times were seen is not there as long as they are the same.
"""

from __future__ import annotations

from collections import OrderedDict

from tmemfs.volumes.nodes import Node
from tmemfs.volumes.recent import Recent
from tmemfs.volumes.stamps import settled, stamp

# So many names are remembered, those of the directories in which one was missing last.
_NAMES = 16384


class Absent:
    """The names that are known not to be there, by what is *recent* of their directories."""

    def __init__(self, recent: Recent) -> None:
        self._recent = recent
        # The stamp of each directory, and what was not there under it.
        self._names: OrderedDict[Node, tuple[int, set[bytes]]] = OrderedDict()
        self._count = 0

    def before(self, parent: Node) -> int:
        """Return what `note` wants to know about a name, before it is asked for; 0 for nothing."""
        seen = self._recent.attributes(parent)
        # Who changes the directory within the same tick of a clock does not change its times.
        return stamp(seen[0]) if seen is not None and settled(*seen) else 0

    def note(self, parent: Node, name: bytes, before: int) -> None:
        """Note that *name* was not in *parent*, of which `before` had said *before*."""
        if not before:
            return
        noted = self._names.get(parent)
        if noted is None or noted[0] != before:
            self._drop(parent)
            noted = self._names[parent] = before, set()
        if name not in noted[1]:
            noted[1].add(name)
            self._count += 1
        self._names.move_to_end(parent)
        while self._count > _NAMES:
            self._drop(next(iter(self._names)))

    def says(self, parent: Node, name: bytes) -> bool:
        """Whether *name* is known not to be in *parent*."""
        noted = self._names.get(parent)
        if noted is None or name not in noted[1]:
            return False
        seen = self._recent.attributes(parent)
        if seen is None:
            return False
        if stamp(seen[0]) != noted[0]:
            self._drop(parent)
            return False
        return True

    def clear(self) -> None:
        """Forget everything."""
        self._names.clear()
        self._count = 0

    def _drop(self, parent: Node) -> None:
        _, names = self._names.pop(parent, (0, set[bytes]()))
        self._count -= len(names)
