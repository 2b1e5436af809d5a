"""The FUSE session: what we add to pyfuse3's, how much it may be asked at once, and who serves it.

``_session.c`` says what is added and how. It is built where there are a compiler and libfuse's
headers. Without it everything works but discard, and each request takes new memory.
"""

from __future__ import annotations

import errno
import importlib
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import trio

from tmemfs.fuse.workers import Workers
from tmemfs.native.lane import Lane
from tmemfs.native.storage import NativeStorage
from tmemfs.supervise import failsafe, keep
from tmemfs.tmem.storage import Storage

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the kernel may ask of a mount at once.

    *background* requests that nobody waits for (reads ahead, and all that a loop device asks) of up
    to *largest* bytes each. Each request of any kind that is under way has one of *tasks*; what
    goes beyond that waits in the kernel.
    """

    background: int
    largest: int
    tasks: int


# Requests for a file that does not answer wait for it, and must leave enough for all others. By
# default the kernel has no more than twelve reads ahead under way: one such file would take them.
FOR_FILES = Bounds(background=4096, largest=1 << 20, tasks=4096)
# The memory for all that may be under way is touched before swap is on (`tmemfs.swap.hardening`),
# so it must not be much: what is here, the heap there is made for.
FOR_SWAP = Bounds(background=12, largest=256 << 10, tasks=32)

# So many tasks stay while nothing is asked: to start one takes as long as to serve a hit.
_IDLE_TASKS = 8
_ENOUGH = 1 << 30

_serving: list[Workers] = []


def active() -> bool:
    """Say whether the extension is in use: from the moment on when pyfuse3 has made its session."""
    return extension is not None and bool(extension.active())


def why_not() -> str:
    """Say for people what is missing where it is not `active`."""
    return _missing or "pyfuse3 makes its sessions in another way than it used to"


def bound(bounds: Bounds) -> None:
    """Let *bounds* hold for the session that is made next; without the extension they do not."""
    if extension is not None:
        extension.bounds(bounds.background, bounds.largest)


class Asked(NamedTuple):
    """What the request that this task serves says of itself: whose it is, and of what.

    *flags* are those of a write (``FUSE_WRITE_*``) or of a change of attributes (``FATTR_*``).
    """

    unique: int
    nodeid: int
    uid: int
    gid: int
    pid: int
    flags: int


def asked() -> Asked | None:
    """Return what is known of the request that this task serves; None without the extension."""
    found = extension.asked.get(None) if extension is not None else None
    return Asked(*found) if found else None


def wanted() -> dict[str, bool]:
    """Return, by name, which wishes of ours the kernel has been told, once the mount serves."""
    found: dict[str, bool] = extension.wanted() if extension is not None else {}
    return found


def touch_stack(size: int) -> None:
    """Have the memory of *size* bytes of this thread's stack, below where it is now."""
    if extension is not None:
        extension.touch_stack(size)


def lane(
    storage: Storage, bounds: Bounds, settle: Callable[[], None], *, touch: bool
) -> Lane | None:
    """Return a lane for the session that was made; None where there cannot be one.

    When it has written something, *settle* is called before the next request is served, which is
    refused if that fails. See `Lane` for *touch*. To be called before `serve`; whoever has it ends
    it.
    """
    if extension is None or not isinstance(storage, NativeStorage) or extension.descriptor() < 0:
        return None
    try:
        made = Lane(storage, extension.descriptor(), bounds.largest, touch=touch)
    except OSError as error:  # no thread, no descriptor: who mounts can do without
        log.warning("reads are not answered by threads of their own: %s", error)
        return None
    extension.attach(made.capsule, touch, settle)
    return made


def detach(lane: Lane) -> None:
    """End *lane*; the session reads for itself from now on."""
    assert extension is not None
    extension.attach(None, False)
    lane.end()


async def serve(bounds: Bounds, lane: Lane | None = None) -> None:
    """Serve requests until the mount is gone or `terminate` was called.

    Those that the *lane* does not answer, if there is one. An error in a task that serves them,
    outside of any handler, ends neither the task nor others.
    """
    # What pyfuse3.main does, but for one thing: there, the error of one task cancels all others
    # amid their requests, which are then never answered.
    sys.unraisablehook = _not_dispatched
    if lane is not None:
        trio.lowlevel.add_instrument(lane.turn)
    async with trio.open_nursery() as nursery:
        fd = extension.descriptor() if extension is not None else -1
        fd = lane.events if lane is not None else fd
        if fd < 0:
            _Tasks(nursery).start_soon(_pyfuse3()._session_loop, None, _IDLE_TASKS, bounds.tasks)
        else:
            await _serve_with_workers(fd, bounds, nursery)


async def _serve_with_workers(fd: int, bounds: Bounds, nursery: trio.Nursery) -> None:
    """Let `Workers` decide which of pyfuse3's loops reads, and how many of them there are."""
    workers = Workers(fd, bounds.tasks, lambda: nursery.start_soon(one))
    pyfuse3 = _pyfuse3()
    pyfuse3._wait_fuse_readable = workers.readable

    async def one() -> None:
        try:
            # It is never to find that there are too many of them, nor too few.
            await keep(_answering, pyfuse3._session_loop, None, _ENOUGH, -_ENOUGH)
        finally:
            workers.ended()

    trio.lowlevel.add_instrument(workers)
    _serving.append(workers)
    workers.start()


def terminate() -> None:
    """Let `serve` return when all requests that there are have been answered."""
    for workers in _serving:
        workers.close()
    _pyfuse3().terminate()


class _Tasks:
    """A nursery, as far as pyfuse3 uses the one that it is given: to start one more task."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery

    def start_soon(
        self, work: Callable[..., Awaitable[None]], nursery: object, *args: Any, name: object = None
    ) -> None:
        self._nursery.start_soon(keep, _answering, work, self, *args, name=name)


async def _answering(work: Callable[..., Awaitable[None]], *args: Any) -> None:
    """Do *work*, pyfuse3's loop; whoever waits for it when it fails is told so."""
    try:
        await work(*args)
    except Exception:
        _refuse()
        raise


def _not_dispatched(unraisable: sys.UnraisableHookArgs) -> None:
    """Note an error that nobody can catch; where it was pyfuse3's, a request is left with it."""
    where, error = unraisable.object, unraisable.exc_value
    if isinstance(where, str) and where.startswith("pyfuse3.fuse_"):
        _refuse()
    if isinstance(error, Exception):
        failsafe.note(str(where), error)
    else:
        sys.__unraisablehook__(unraisable)


def _refuse() -> None:
    """Answer the request that this task has with EIO, unless it was answered already."""
    if extension is not None and (request := asked()) is not None:
        extension.answer(request.unique, errno.EIO, b"")


def _pyfuse3() -> Any:
    # Imported late: it must be loaded after the extension, which this module loads.
    return importlib.import_module("pyfuse3")


def _load() -> ModuleType:
    """Load the extension so that pyfuse3, if it is loaded after it, finds it before libfuse."""
    before = sys.getdlopenflags()
    sys.setdlopenflags(before | os.RTLD_GLOBAL)
    try:
        return importlib.import_module("tmemfs.fuse._session")
    finally:
        sys.setdlopenflags(before)


extension: ModuleType | None = None
_missing = ""
try:
    extension = _load()
except ImportError as problem:
    _missing = f"tmemfs was installed without its extension ({problem})"
