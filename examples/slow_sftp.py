"""A far away SFTP server: the one of this machine, all bytes on their way for a while.

    python slow_sftp.py SECONDS COUNTS ...      stands in for ssh; further arguments are ignored

What comes in from either side goes out on the other one *SECONDS* later, so that a question and
its answer take twice that. Any number of them can be on the way at once: this is latency, and no
limit of bandwidth. COUNTS is a file of `Counts`, made if it is missing: what was asked for.
"""

import mmap
import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path

SERVERS = [
    Path("/usr/lib/openssh/sftp-server"),
    Path("/usr/lib/ssh/sftp-server"),
    Path("/usr/libexec/openssh/sftp-server"),
    Path("/usr/libexec/sftp-server"),
]
REQUESTS = dict(
    enumerate(
        (
            *("init", "version", "open", "close", "read", "write", "lstat", "fstat", "setstat"),
            *("fsetstat", "opendir", "readdir", "remove", "mkdir", "rmdir", "realpath", "stat"),
            *("rename", "readlink", "symlink"),
        ),
        start=1,
    )
) | {200: "extended"}
"""The types of requests, as the protocol numbers them."""

_PIECE = 1 << 20
_HEAD = struct.Struct(">IB")
_KINDS = 256


def server() -> Path | None:
    """The SFTP server of this machine, if it has one."""
    return next((path for path in SERVERS if path.exists()), None)


class Counts:
    """How many requests of each type have passed, in a file that two processes may look at."""

    def __init__(self, file: Path) -> None:
        self.file = file
        with open(file, "a+b") as opened:
            opened.truncate(8 * _KINDS)
            self._numbers = memoryview(mmap.mmap(opened.fileno(), 8 * _KINDS)).cast("Q")

    def add(self, kind: int) -> None:
        self._numbers[kind] += 1

    def now(self) -> dict[str, int]:
        """The types that there were, with their numbers."""
        return {name: self._numbers[kind] for kind, name in REQUESTS.items() if self._numbers[kind]}


class Reader:
    """Takes note of the requests in a stream that comes in pieces."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._head = b""
        self._skip = 0

    def see(self, piece: bytes) -> None:
        at = 0
        while at < len(piece):
            if self._skip:
                skipped = min(self._skip, len(piece) - at)
                self._skip -= skipped
                at += skipped
                continue
            missing = _HEAD.size - len(self._head)
            self._head += piece[at : at + missing]
            at += missing
            if len(self._head) == _HEAD.size:
                length, kind = _HEAD.unpack(self._head)
                self._counts.add(kind)
                self._head, self._skip = b"", length - 1


class Way:
    """One direction: what came in at *source* and has yet to leave at *target*."""

    def __init__(self, source: int, target: int, delay: float, reader: Reader | None) -> None:
        self.source = source
        self.target = target
        self.open = True
        self._delay = delay
        self._reader = reader
        self._pieces: deque[tuple[float, bytes]] = deque()

    @property
    def due(self) -> float | None:
        """When the next piece is to leave; None where none is on its way."""
        return self._pieces[0][0] if self._pieces else None

    def take(self) -> None:
        """Let a piece come in: the end, if it is empty."""
        piece = os.read(self.source, _PIECE)
        if self._reader is not None:
            self._reader.see(piece)
        self._pieces.append((time.monotonic() + self._delay, piece))
        self.open = bool(piece)

    def give(self) -> bool:
        """Let as much of the next piece leave as the other side takes; False at the end."""
        due, piece = self._pieces[0]
        if not piece:
            return False
        written = os.write(self.target, piece)
        if written == len(piece):
            self._pieces.popleft()
        else:
            self._pieces[0] = (due, piece[written:])
        return True


def relay(ways: list[Way]) -> None:
    """Let everything through, until one of the sides has ended."""
    for way in ways:
        os.set_blocking(way.target, False)
    while True:
        now = time.monotonic()
        ready = [way for way in ways if way.due is not None and way.due <= now]
        later = [way.due - now for way in ways if way.due is not None and way.due > now]
        readable, writable, _ = select.select(
            [way.source for way in ways if way.open],
            [way.target for way in ready],
            [],
            min(later, default=None),
        )
        for way in ways:
            if way.source in readable:
                way.take()
            if way in ready and way.target in writable and not way.give():
                return


def main(delay: str, counts: str) -> None:
    """Start the server and stand between it and standard input and output."""
    found = server()
    if found is None:
        sys.exit("no sftp-server")
    ours, its = socket.socketpair()
    for end in (ours, its):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PIECE)
    with subprocess.Popen([str(found)], stdin=its.fileno(), stdout=its.fileno()), ours:
        its.close()
        there = Way(0, ours.fileno(), float(delay), Reader(Counts(Path(counts))))
        back = Way(ours.fileno(), 1, float(delay), None)
        with suppress(ConnectionError):  # one of them has gone
            relay([there, back])


if __name__ == "__main__":
    main(*sys.argv[1:3])
