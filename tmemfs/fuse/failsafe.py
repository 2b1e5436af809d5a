"""One wrapper around every handler, so that no mistake of ours can end a mount.

pyfuse3 ends the mount on any exception but FUSEError. Here an OSError becomes its errno, and
anything else becomes EIO for that one caller, a log record with the traceback, and a mark in the
status.
"""

from __future__ import annotations

import errno
import functools
import logging
from collections.abc import Callable, Coroutine
from types import CoroutineType
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast

import pyfuse3

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


class Failsafe:
    """How often the wrapper had to step in, and for what."""

    def __init__(self) -> None:
        self.count = 0
        self.last: str | None = None

    def note(self, where: str, error: Exception) -> None:
        """Count one unexpected *error* in the handler *where*, and log it with its traceback."""
        self.count += 1
        self.last = f"{where}: {type(error).__name__}: {error}"
        log.error("handler %s failed, its caller got EIO", where, exc_info=error)

    def statistics(self) -> dict[str, Any]:
        """Return ``count`` and ``last``."""
        return {"count": self.count, "last": self.last}


class HasFailsafe(Protocol):
    """Whose methods can be handlers."""

    failsafe: Failsafe

    def stale(self) -> None:
        """A caller gets ESTALE; the kernel will ask again, and must not get the same answer."""


S = TypeVar("S", bound=HasFailsafe)


def handler(
    method: Callable[Concatenate[S, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
    """Turn whatever *method* raises into a FUSEError.

    *method* may be a plain function that returns a coroutine only when it has to wait: a read
    that is served from memory should not pay for coroutines that it does not need.
    """

    @functools.wraps(method)
    async def wrapped(self: S, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            result: Any = method(self, *args, **kwargs)
            if type(result) is CoroutineType:
                result = await result
            return cast(R, result)
        except pyfuse3.FUSEError:
            raise
        except OSError as error:
            if error.errno == errno.ESTALE:
                self.stale()
            raise pyfuse3.FUSEError(error.errno or errno.EIO) from error
        except Exception as error:
            self.failsafe.note(method.__name__, error)
            raise pyfuse3.FUSEError(errno.EIO) from error

    return cast(Callable[Concatenate[S, P], Coroutine[Any, Any, R]], wrapped)
