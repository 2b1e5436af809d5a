"""A tmemfs mount for as long as a program needs it, made with the command that everybody uses."""

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loop_swap import detach, run

COMMAND = Path(sys.executable).with_name("tmemfs")


class TmemfsMount:
    """What is mounted at *path*, and its figures."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def figures(self) -> dict[str, Any]:
        """All that tmemfs says of itself now."""
        found: dict[str, Any] = json.loads((self.path / ".tmemfs" / "status.json").read_bytes())
        return found

    def gets(self) -> tuple[int, int]:
        """How many pages were asked for and how many found, in all pools that are a cache."""
        caches = [pool for pool in self.figures()["pools"] if pool["kind"] == "ephemeral"]
        return sum(pool["gets"] for pool in caches), sum(pool["found_gets"] for pool in caches)

    def memory_line(self) -> str:
        """What is kept, as what, and what that takes, in one line."""
        memory = self.figures()["memory"]
        kept, compressed, used = (
            memory[name] / (1 << 20)
            for name in ("orig_data_size", "compr_data_size", "mem_used_total")
        )
        return f"{kept:.0f} MiB kept as {compressed:.0f} MiB, {used:.0f} MiB used"

    def status_table(self) -> str:
        """What `tmemfs status` prints."""
        return run(COMMAND, "status", self.path)


@contextmanager
def mounted(source: Path, prefix: str, *options: str) -> Iterator[TmemfsMount]:
    """Mount *source* on a new directory whose name starts with *prefix*; unmount it at the end."""
    path = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        run(COMMAND, "mount", source, path, *options)
        yield TmemfsMount(path)
    finally:
        unmount(path)


def unmount(path: Path) -> None:
    """Take away the mount at *path*, with what may still be on its files, and the directory.

    It looks at what is there, so that it undoes a half as well as a whole.
    """
    detach(path)
    if os.path.ismount(path):
        run(COMMAND, "umount", "--timeout=30", path)
    path.rmdir()
