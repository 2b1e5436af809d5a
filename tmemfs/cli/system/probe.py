"""What a daemon could do here for its safety, tried as it would do it, without a trace of it."""

from __future__ import annotations

import contextlib
import json
import os
from importlib.machinery import PathFinder

import tmemfs
from tmemfs.linux import system
from tmemfs.swap import safety
from tmemfs.units import format_size

EXTENSION = "_session"
# Without these of the daemon's steps, a machine that runs out of memory stops for good. The others
# are a second line: with these in place it was never seen to stop.
VITAL = frozenset({"lock_memory", "reserve", "requests"})
# What a daemon takes beside its budget, and what more where there is an overflow file.
BESIDE_BUDGET, FOR_OVERFLOW = 80 << 20, 24 << 20


def steps(budget: int, *, overflow: bool) -> list[safety.Step]:
    """The steps of a daemon with this budget; `docs/swap-safety.md` has them all."""
    return [*tried_in_a_child(), reserve(budget, overflow=overflow), requests()]


def tried_in_a_child() -> list[safety.Step]:
    """What `safety.secure` comes to here, without a trace of it in this process."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            # Some of what it is given, its whole session gets.
            os.setsid()
            steps = safety.secure(system.physical_memory())
            os.write(writing, json.dumps([step.as_dict() for step in steps]).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    if not said:
        return [safety.Step("safety", False, "what the daemon may do could not be found out")]
    return [safety.Step(**step) for step in json.loads(said)]


def reserve(budget: int, *, overflow: bool) -> safety.Step:
    """Whether the memory of a budget could be taken now, and kept."""
    taken = budget + BESIDE_BUDGET + (FOR_OVERFLOW if overflow else 0)
    free = max(safety.touchable(), 0)
    if taken <= free:
        text = f"a budget of {format_size(budget)} can be taken at the start"
        return safety.Step("reserve", True, text)
    return safety.Step(
        "reserve",
        False,
        f"with a budget of {format_size(budget)} a daemon takes {format_size(taken)}, and it may "
        f"take {format_size(free)} ahead of need; give it a smaller --budget, or free memory",
    )


def requests() -> safety.Step:
    """Whether a request is read into a buffer that is there; swap on a mount that exists knows."""
    if has_extension():
        return safety.Step("requests", True, "a request takes no new memory from the kernel")
    return safety.Step(
        "requests",
        False,
        "the kernel takes new memory for each request; install a C compiler and libfuse3-dev, "
        "then tmemfs anew",
    )


def has_extension() -> bool:
    """Whether tmemfs was installed with its extension."""
    # Looked for, not imported: that would load all of FUSE.
    where = os.path.join(os.path.dirname(tmemfs.__file__), "fuse")
    return PathFinder.find_spec(EXTENSION, [where]) is not None
