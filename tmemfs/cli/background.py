"""A daemon whose starter waits until it serves, and hears why when it does not come to that.

The starter forks; the child leaves the terminal, serves, and says one line through a pipe:
`ready`, or an exit code and a message. The fork comes before the FUSE library, trio or any thread
is there, so that the child starts from a process of one thread. Until it is ready the child keeps
stderr, because that is where the FUSE library writes the reason of a failure.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Callable, Iterable

from tmemfs.cli import logs
from tmemfs.config import MountConfig
from tmemfs.errors import (
    InternalError,
    Interrupted,
    MountFailure,
    NotPermitted,
    SystemFailure,
    TmemfsError,
    as_error,
)

Serve = Callable[[Callable[[], None]], None]

_READY = "ready"
_BY_CODE: dict[int, type[TmemfsError]] = {
    cls.exit_code: cls
    for cls in (NotPermitted, SystemFailure, InternalError, Interrupted, MountFailure)
}

_log = logging.getLogger(__name__)


def start(serve: Serve, log: str | None = None) -> int:
    """Run `serve(on_ready)` in a child; its pid as soon as it called `on_ready`.

    It logs to *log* (see `logs.start`).

    Raises a TmemfsError with the child's message and exit code when `serve` raised, or ended in
    any other way, before that. An interrupt ends the child and is passed on.
    """
    reading, writing = os.pipe()
    # Held back, so that an interrupt never finds a child that nobody would end.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        os._exit(_child(serve, log, _Starter(writing), mask))
    try:
        os.close(writing)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        with open(reading, encoding="utf-8") as pipe:
            said = pipe.readline().rstrip("\n")
    except BaseException:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
        raise
    if said == _READY:
        return pid
    _, status = os.waitpid(pid, 0)
    code, _, message = said.partition(" ")
    if message:
        raise _BY_CODE.get(int(code), MountFailure)(message)
    ended = os.waitstatus_to_exitcode(status)
    how = f"was ended by signal {-ended}" if ended < 0 else f"ended with code {ended}"
    raise MountFailure(f"the daemon {how} before the mount answered")


class _Starter:
    """The child's end of the pipe; it takes one line and is closed."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def tell(self, line: str) -> None:
        """Say `line` if nothing was said yet; the number of a closed pipe may be a file's now."""
        if self.fd < 0:
            return
        fd, self.fd = self.fd, -1
        with contextlib.suppress(BrokenPipeError):  # the starter is gone: the log has it
            os.write(fd, (line + "\n").encode())
        os.close(fd)


def _child(serve: Serve, log: str | None, starter: _Starter, mask: Iterable[int]) -> int:
    """Serve as a daemon, with the signal mask that the starter had; returns the exit code."""

    def ready() -> None:
        _leave_terminal()
        starter.tell(_READY)

    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.setsid()
        os.chdir("/")  # or the daemon would hold the directory it was started in
        _close_inherited(starter.fd)
        logging.basicConfig(handlers=[logging.NullHandler()], force=True)  # until there is one
        logs.start(log, foreground=False)
        serve(ready)
    except BaseException as exc:
        error = as_error(exc)
        if isinstance(error, InternalError):
            _log.exception("the daemon ends by a mistake of its own")
        else:
            _log.error("%s", error)
        starter.tell(f"{error.exit_code} {error}")
        return error.exit_code
    return 0


def _close_inherited(keep: int) -> None:
    """Close what the caller left open for any program that it starts.

    Else a lock that a script holds in a file descriptor is held for as long as the mount is there.
    """
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            if fd > 2 and fd != keep and os.get_inheritable(fd):
                os.close(fd)
        except OSError:
            pass  # the descriptor of the listing itself


def _leave_terminal() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)


def serve(config: MountConfig, on_ready: Callable[[], None]) -> None:
    """Run the daemon in this process until the mount is gone.

    It is imported only here: after the fork, and by nobody who only reads the figures.
    """
    try:
        from tmemfs import daemon
    except ImportError as exc:
        raise SystemFailure(f"cannot load what a mount needs: {exc}; is it installed?") from exc
    daemon.run(config, on_ready)
