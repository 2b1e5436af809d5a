"""One wrapper around every handler, so that no mistake of ours can end a mount.

To pyfuse3 a FUSEError is an answer, and any other exception none: the caller would wait for ever.
Here an OSError becomes its errno, and anything else becomes EIO for that one caller, a log record
with the traceback, and a mark in the status. What fails for want of a descriptor is made again.
"""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable, Coroutine
from types import CoroutineType
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import pyfuse3

from tmemfs.fuse.shortage import Shortage, lacks_descriptor
from tmemfs.supervise import Failsafe

P = ParamSpec("P")
R = TypeVar("R")


class HasFailsafe(Protocol):
    """Whose methods can be handlers."""

    failsafe: Failsafe
    shortage: Shortage

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

    async def once_more(self: S, *args: P.args, **kwargs: P.kwargs) -> Any:
        result: Any = method(self, *args, **kwargs)
        return await result if type(result) is CoroutineType else result

    @functools.wraps(method)
    async def wrapped(self: S, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            try:
                result: Any = method(self, *args, **kwargs)
                if type(result) is CoroutineType:
                    result = await result
                return result  # type: ignore[no-any-return]  # cast() would be a call
            except OSError as error:
                if not lacks_descriptor(error):
                    raise
            return await self.shortage.again(lambda: once_more(self, *args, **kwargs))
        except pyfuse3.FUSEError:
            raise
        except OSError as error:
            if error.errno == errno.ESTALE:
                self.stale()
            raise pyfuse3.FUSEError(error.errno or errno.EIO) from error
        except Exception as error:
            message = "handler %s failed, its caller got EIO"
            self.failsafe.note(method.__name__, error, message)
            raise pyfuse3.FUSEError(errno.EIO) from error

    return wrapped  # type: ignore[return-value]
