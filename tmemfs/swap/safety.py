"""Keeps a daemon that serves swap from waiting for memory that only it can free.

A machine out of memory asks the daemon to take pages. If the daemon itself then needs a page that
was dropped or swapped out, or a new one, it waits for the very memory that it is to make free, and
everything stops. `docs/swap-safety.md` says what each step is for and what was measured without it.

No step is an error: where one is not permitted the daemon serves all the same, and its record says
in one line what to grant.
"""

import contextlib
import ctypes
import mmap
import os
import resource
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from tmemfs.linux import system

_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_PR_SET_IO_FLUSHER = 57  # Linux 5.6

# What a daemon maps besides its pages: stacks of threads, buffers, its heap. Generous, because
# past a limit that it has locked up to, mapping anything fails.
_HEADROOM = 1 << 30
# So much of the machine's memory, one part in this, is not taken ahead of need.
_LEAVE = 16

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Step:
    """One step: whether it is in place, and a line that says so or what to grant."""

    step: str
    done: bool
    text: str

    def as_dict(self) -> dict[str, object]:
        """The step as the status shows it."""
        return asdict(self)


def lock_memory(to_map: int) -> Step:
    """Lock what is mapped now, touched or not, and of what is mapped later whatever is touched.

    To be called after the last fork, which would undo it, and before anything large is mapped:
    *to_map* is how many bytes that will be.
    """
    _raise_limit()
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    grant = "grant CAP_IPC_LOCK, or LimitMEMLOCK=infinity in its unit"
    if limit != resource.RLIM_INFINITY and not _may_lock():
        # The kernel counts what is mapped, not what is touched. Locked all the same, the daemon
        # would be refused memory as soon as it has mapped that much.
        need = _mapped() + to_map + _HEADROOM
        if limit < need:
            return Step(
                "lock_memory",
                False,
                "the daemon may be swapped out: RLIMIT_MEMLOCK is "
                f"{limit} bytes and {need} are needed: {grant}",
            )
    if _libc.mlockall(_MCL_CURRENT) or _libc.mlockall(_MCL_FUTURE | _MCL_ONFAULT):
        failed = os.strerror(ctypes.get_errno())
        _libc.munlockall()
        return Step(
            "lock_memory", False, f"the daemon may be swapped out: mlockall: {failed}: {grant}"
        )
    return Step("lock_memory", True, "the daemon's memory is locked as it is touched")


def touching(step: Callable[[], bool]) -> Iterator[None]:
    """Repeat *step*, which touches some memory and says whether there is more to do.

    Stops when it says so, and when the machine has little left: taking that would only bring on
    what it is to help with.
    """
    while touchable() > 0 and step():
        yield


def touchable() -> int:
    """Return how many bytes may be taken ahead of need; none are left where it is not above 0."""
    return system.available_memory() - system.physical_memory() // _LEAVE


def secure(to_map: int) -> list[Step]:
    """Take every step at once: what a daemon could do here, for who asks before there is one."""
    return [lock_memory(to_map), *go_first()]


def go_first(*, real_time: bool = False) -> list[Step]:
    """Take what the kernel has to give this process and the threads that it starts from now on.

    To be called when it has all its memory: from now on it gets new memory at others' expense.
    """
    return [_spare(), *([_real_time()] if real_time else []), _flusher()]


def _spare() -> Step:
    """Let the OOM killer look elsewhere: killing the daemon kills whatever is swapped out to it."""
    path, wanted = "/proc/self/oom_score_adj", -1000
    try:
        with open(path, "r+", encoding="ascii") as file:
            if int(file.read()) != wanted:
                file.write(f"{wanted}\n")
    except OSError as error:
        return Step(
            "oom_score_adj",
            False,
            "the OOM killer may end the daemon, and what is swapped out with it "
            f"({error.strerror}): grant CAP_SYS_RESOURCE, or OOMScoreAdjust={wanted} in its unit",
        )
    return Step("oom_score_adj", True, f"the OOM killer spares the daemon ({wanted})")


def _real_time() -> Step:
    """Run before everything else, for a machine whose processors are always busy.

    Threads inherit it, and must: one of them that waits for the processor may hold the
    interpreter's lock. On an idle machine it makes a fault half as long again, because who waits
    for the answer may have to wait for the daemon to sleep; `docs/swap-safety.md` has the figures.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except OSError as error:
        return Step(
            "real_time",
            False,
            f"busy programs make swap slow ({error.strerror}): grant CAP_SYS_NICE, or "
            "LimitRTPRIO=1 in its unit",
        )
    return Step("real_time", True, "the daemon runs under SCHED_RR with priority 1")


def _flusher() -> Step:
    """Tell the kernel that I/O depends on this process: its memory is not to be had by I/O."""
    if _libc.prctl(_PR_SET_IO_FLUSHER, 1, 0, 0, 0):
        return Step(
            "io_flusher",
            False,
            "the daemon may wait for its own swap when it needs memory "
            f"({os.strerror(ctypes.get_errno())}): grant CAP_SYS_RESOURCE (Linux 5.6 or newer)",
        )
    return Step("io_flusher", True, "the daemon's memory never waits for I/O (PR_SET_IO_FLUSHER)")


def _raise_limit() -> None:
    """Lift the limit of locked memory as far as it goes."""
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    for limit in (resource.RLIM_INFINITY, hard):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, max(limit, hard)))
            return


def _may_lock() -> bool:
    """Say whether this process may lock memory beyond any limit, by trying it with none."""
    before = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    with mmap.mmap(-1, mmap.PAGESIZE) as page:
        start = ctypes.c_char.from_buffer(page)
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, before[1]))
        try:
            return not _libc.mlock(ctypes.byref(start), ctypes.c_size_t(mmap.PAGESIZE))
        finally:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, before)
            del start


def _mapped() -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[0]) * mmap.PAGESIZE
