"""A record of what a mount was asked to read, for those who want to replay it.

A text, one read a line: a number for the file, the first page, and how many pages where it is more
than one. Files are numbered in the order in which they are first read.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
from typing import TextIO

log = logging.getLogger(__name__)

# Written in large pieces: a record must not slow down what it is of.
_BUFFER = 1 << 20


class Trace:
    """Writes the record of a volume with pages of *page_size* bytes to the file *path*.

    What everybody reads is nobody's business but ours: the file is for its owner only. Raises
    PermissionError where it is a link, or somebody else's.
    """

    def __init__(self, path: str, page_size: int) -> None:
        self._numbers: dict[int, int] = {}
        self._file: TextIO | None = open(  # noqa: SIM115
            path, "w", buffering=_BUFFER, encoding="ascii", opener=_opener
        )
        self._file.write(f"# tmemfs trace, pages of {page_size} bytes\n")

    def note(self, object_id: int, first: int, count: int) -> None:
        """Note a read of *count* pages from *first* on. A record that fails ends; reads go on."""
        if self._file is None:
            return
        number = self._numbers.setdefault(object_id, len(self._numbers))
        more = f" {count}" if count > 1 else ""
        try:
            self._file.write(f"{number} {first}{more}\n")
        except OSError as error:
            log.warning("the trace ends here: %s: %s", self._file.name, error.strerror)
            self.close()

    def close(self) -> None:
        """Write what is left."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None


def _opener(path: str, flags: int) -> int:
    """Open *path*, which is made if it is not there, and never somebody else's."""
    how = flags & ~os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(path, how, 0o600)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise PermissionError(errno.EPERM, "is a link", path) from None
    try:
        info = os.fstat(fd)
        regular = stat.S_ISREG(info.st_mode)
        known = regular or stat.S_ISCHR(info.st_mode)
        if not known or info.st_uid != os.geteuid() or info.st_nlink != 1:
            raise PermissionError(errno.EPERM, "is not a file of ours alone", path)
        if regular:
            os.fchmod(fd, 0o600)
            os.ftruncate(fd, 0)
    except BaseException:
        os.close(fd)
        raise
    return fd
