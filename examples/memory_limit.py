"""A memory limit for one program: a cgroup of its own, version 1 or 2, for as long as it runs.

    with MemoryLimit(64 << 20) as limit:
        subprocess.run(limit.command(["./program", "argument"]), check=True)

Needs root, and a kernel with the memory controller.
"""

import os
import secrets
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

# Where the memory controller is mounted: alone (version 1), or in the one tree of version 2.
V1 = Path("/sys/fs/cgroup/memory")
V2 = Path("/sys/fs/cgroup")
NAME = "tmemfs-"


def memory_controller() -> Path | None:
    """The directory in which to make a memory cgroup; None where this kernel offers none."""
    if (V1 / "memory.limit_in_bytes").exists():
        return V1
    # A child has the controllers that its parent hands down; the root does so under systemd.
    handed_down = V2 / "cgroup.subtree_control"
    if handed_down.exists() and "memory" in handed_down.read_text().split():
        return V2
    return None


class MemoryLimit:
    """A cgroup with a limit; removed, with what still runs in it, when the context ends.

    The limit is on memory alone: what does not fit goes to swap where there is some, else the
    kernel's OOM killer ends the program.
    """

    def __init__(self, size: int) -> None:
        parent = memory_controller()
        if parent is None:
            raise OSError("this kernel offers no memory cgroup (neither version 1 nor 2)")
        self._limit_file = "memory.limit_in_bytes" if parent == V1 else "memory.max"
        self._usage_file = "memory.usage_in_bytes" if parent == V1 else "memory.current"
        self.size = size
        self._group = parent / f"{NAME}{os.getpid()}-{secrets.token_hex(4)}"

    def __enter__(self) -> Self:
        self._group.mkdir()
        try:
            (self._group / self._limit_file).write_text(str(self.size))
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def command(self, argv: Sequence[str | Path]) -> list[str]:
        """The same command, to be run inside: a shell enters the group, then becomes it.

        Its children are inside too. Nothing runs between fork and exec in this process, so
        this is safe in programs with threads.
        """
        enter = 'echo $$ >"$0" && exec "$@"'
        return ["sh", "-c", enter, str(self._group / "cgroup.procs"), *map(str, argv)]

    @property
    def usage(self) -> int:
        """Bytes of memory that the group uses now."""
        return int((self._group / self._usage_file).read_text())

    def resize(self, size: int) -> None:
        """Make it another limit."""
        (self._group / self._limit_file).write_text(str(size))
        self.size = size

    def close(self) -> None:
        """Kill what still runs inside and remove the group; nothing to do is not an error."""
        _remove(self._group)


def clear_leftovers() -> None:
    """Remove the groups of programs that were killed before they could do it."""
    parent = memory_controller()
    for group in parent.glob(f"{NAME}*-*") if parent else ():
        owner = group.name.removeprefix(NAME).partition("-")[0]
        if not Path("/proc", owner).exists():
            _remove(group)


def _remove(group: Path) -> None:
    while group.exists():
        for pid in (group / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        try:
            group.rmdir()
        except OSError:  # EBUSY until the last of them is gone
            time.sleep(0.02)
