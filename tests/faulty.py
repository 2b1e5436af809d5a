"""A real filesystem that fails on request: a directory, shown through FUSE by a process of its own.

    with FaultyBacking(tmp_path) as backing:
        backing.inject("file", "read", error=errno.EIO, start=4096)   # from there on
        backing.inject("*", "*", hang=True)                           # whatever is asked
        backing.mend()                                                # and what hung goes on
        backing.calls("file", "read")                                 # [(offset, size), ...]

The files are those of `backing.under`, where a test finds what was really written; the mount is
`backing.path`. Nothing is cached in between unless *cached*. A name is a path below the root,
``.`` for that itself, ``*`` for any; an operation is a handler's name (lookup, getattr, open, read,
write, flush, fsync, readdir, statfs, ...). An error from *start* on is one in the middle for the
call that reaches it: what lies before it is read or written first, as by a disk. Leaving the
context releases everybody, takes the mount away and ends the process, stopped or not.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import faulty_fs
from faulty_fs import ANY
from mounting import Mounted, mounted


class FaultyBacking:
    """A faulty filesystem mounted at *place*/faulty over the directory *place*/under; see above."""

    def __init__(self, place: Path, *, cached: bool = False) -> None:
        self.path = place / "faulty"
        self.under = place / "under"
        self._cached = cached

    def __enter__(self) -> FaultyBacking:
        for directory in (self.path, self.under):
            directory.mkdir(exist_ok=True)
        command = [
            sys.executable,
            faulty_fs.__file__,
            self.under,
            self.path,
            str(int(self._cached)),
        ]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert self._read() == "ready"
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.go_on()
        with suppress(BrokenPipeError):
            self.process.stdin.close()  # which ends it in order
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.detach()

    def inject(self, name: str, operation: str, **fault: Any) -> None:
        """From now on, there is a `Fault`."""
        self._ask("inject", name=name, operation=operation, **fault)

    def mend(self, name: str = ANY) -> None:
        """Take the faults of *name* away, or all; what is held goes on."""
        self._ask("mend", name=name)

    def held(self, name: str = ANY) -> int:
        """How many calls hang now."""
        return int(self._ask("held", name=name))

    def calls(self, name: str, operation: str) -> list[tuple[int, int]]:
        """Offset and size of every such call by now, in order."""
        return [
            (offset, size) for offset, size in self._ask("calls", name=name, operation=operation)
        ]

    def forget(self) -> None:
        """Forget the calls by now."""
        self._ask("forget")

    def stop(self) -> None:
        """Stop the process as a whole: nobody even takes a request."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End the process as nobody can catch it: who asks the mount is told that it is dead."""
        self.process.kill()
        self.process.wait()

    def detach(self) -> None:
        """Unmount it lazily, if it still is mounted: who has something open goes on."""
        command = ["umount", "--lazy", self.path]
        subprocess.run(command, check=False, stderr=subprocess.DEVNULL)

    def _ask(self, command: str, **what: Any) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([command, what]) + "\n")
        return self._read()

    def _read(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())


@contextmanager
def over_faulty(
    place: Path, *options: str, cached: bool = False, logs: bool = False
) -> Iterator[tuple[FaultyBacking, Mounted]]:
    """A faulty filesystem, and tmemfs over it. All faults are mended before that has to end."""
    with (
        FaultyBacking(place, cached=cached) as backing,
        mounted(backing.path, place / "m", "--budget=32M", *options, logs=logs) as mount,
    ):
        try:
            yield backing, mount
        finally:
            if backing.process.poll() is None:
                backing.go_on()
                backing.mend()


@contextmanager
def requests_of(place: Path, mountpoint: Path) -> Iterator[Callable[[], int]]:
    """A function that tells how many requests the kernel has for who serves *mountpoint*.

    Those that wait to be taken and those that wait for their answer.
    """
    connections = place / "connections"
    connections.mkdir()
    subprocess.run(["mount", "-t", "fusectl", "fusectl", connections], check=True)
    try:
        waiting = connections / str(os.minor(os.stat(mountpoint).st_dev)) / "waiting"
        yield lambda: int(waiting.read_text())
    finally:
        subprocess.run(["umount", connections], check=True)


def read_direct(path: Path, offset: int, size: int) -> bytes:
    """Read bytes of a file as who serves the mount has them, the kernel's cache left out."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        return os.pread(fd, size, offset)
    finally:
        os.close(fd)
