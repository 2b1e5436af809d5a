"""Every failure tmemfs reports by itself: one line a user can act on, and an exit code.

The codes are those of mount(8), because mount(8) is who starts us from fstab and systemd reads
them; a wrong option, size or key is 2 in every command. A message names the thing that is wrong
first and what to do about it second, and never ends with a full stop (a prefix and a line end
are added where it is shown).
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable
from typing import ClassVar


class TmemfsError(Exception):
    """The root of all errors that are told to a user rather than traced.

    `str(error)` is always a single line: file names may hold line ends, and a log or a pipe
    that is read line by line must not be fooled by them.
    """

    exit_code: ClassVar[int] = 32

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return one_line(self.message)


class UsageError(TmemfsError):
    """What was typed cannot be meant: an unknown option, a size that is none, a wrong key."""

    exit_code = 2

    @classmethod
    def unknown(cls, what: str, given: str, valid: Iterable[str]) -> UsageError:
        """An error that says which `what` is unknown, and the valid one nearest to it if any."""
        return cls(f"unknown {what} {given!r}{did_you_mean(given, valid)}")


class NotPermitted(TmemfsError):
    """The caller may not do this; the message says what to grant or whom to ask."""

    exit_code = 1


class SystemFailure(TmemfsError):
    """The machine lacks something that has nothing to do with this mount: memory, a device."""

    exit_code = 2


class InternalError(TmemfsError):
    """A mistake in tmemfs itself; the message asks for a report."""

    exit_code = 4


class Interrupted(TmemfsError):
    """The user ended the command before it was through."""

    exit_code = 8


class MountFailure(TmemfsError):
    """This mount, or this unmount, did not work."""

    exit_code = 32


def from_os_error(exc: OSError) -> TmemfsError:
    """What a failed system call is to a user: its file and its cause, and whose fault it is."""
    cause = exc.strerror or str(exc) or type(exc).__name__
    files = " -> ".join(str(name) for name in (exc.filename, exc.filename2) if name is not None)
    message = f"{files}: {cause}" if files else cause
    if exc.errno in (errno.EPERM, errno.EACCES):
        return NotPermitted(message)
    if exc.errno in (errno.ENOMEM, errno.ENFILE, errno.EMFILE, errno.EAGAIN):
        return SystemFailure(message)
    return MountFailure(message)


def as_error(exc: BaseException) -> TmemfsError:
    """What a user is told of any exception; an InternalError is one that also wants a traceback.

    Of a group, as tasks leave it, that is what its only member says.
    """
    while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    if isinstance(exc, TmemfsError):
        return exc
    if isinstance(exc, OSError):
        return from_os_error(exc)
    if isinstance(exc, KeyboardInterrupt):
        return Interrupted("interrupted")
    if isinstance(exc, MemoryError):
        return SystemFailure("out of memory")
    return InternalError(f"a mistake in tmemfs, please report it: {exc!r}")


def did_you_mean(given: str, valid: Iterable[str]) -> str:
    """The end of a sentence that names the valid word nearest to `given`; empty if none is near."""
    near = difflib.get_close_matches(given, sorted(valid), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def one_line(text: str) -> str:
    """`text` with every control character written out (`\\n`, `\\x1b`), so that it is one line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class SwapFailure(TmemfsError):
    """Swap on a volume could not be turned on, or off; the message says what is left of it."""

    exit_code = 32


class BadPool(TmemfsError, ValueError):
    """A pool was asked for with a page size, kind or uuid that cannot be; nothing was created."""

    exit_code = 2


class BudgetError(TmemfsError):
    """The budget cannot be what was asked for; it stays as it was."""

    exit_code = 2


class CorruptPage(TmemfsError):
    """A stored page does not decode; its bytes are not given to anybody."""


class BudgetInUse(BudgetError):
    """The budget does not hold the persistent pages that are there; it stays as it was."""
