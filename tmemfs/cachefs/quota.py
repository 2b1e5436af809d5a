"""Limits how many backing descriptors of open files there are, in all and for one user."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Hashable

from tmemfs.linux.credentials import Caller


class TooManyOpen(OSError):
    """Others need the descriptors that are left: an answer, and nothing to wait for."""


class Quota:
    """Up to *limit* descriptors, of which no user but root may have more than a half.

    What is counted is a descriptor, or a file that is going to have one.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._owners: dict[Hashable, int] = {}
        self._owned: Counter[int] = Counter()

    def __contains__(self, what: Hashable) -> bool:
        return what in self._owners

    def admit(self, caller: Caller) -> None:
        """Raise ENFILE where *caller* would take the last descriptors from others."""
        uid, count = caller.uid, len(self._owners)
        if count >= self._limit or (uid and self._owned[uid] >= self._limit // 2):
            raise TooManyOpen(errno.ENFILE, os.strerror(errno.ENFILE))

    def charge(self, what: Hashable, caller: Caller) -> None:
        """Count *what* as *caller*'s."""
        self._owners[what] = caller.uid
        self._owned[caller.uid] += 1

    def release(self, what: Hashable) -> None:
        """Count *what* no more, if it was."""
        uid = self._owners.pop(what, None)
        if uid is not None:
            self._owned[uid] -= 1
