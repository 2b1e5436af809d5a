"""The command `tmemfs` run on a terminal of its own, at which a test sits."""

import os
import pty
import select
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager

from command import COMMAND, environment
from mounting import SECONDS


class Terminal:
    """What is on a terminal, and what is typed there."""

    def __init__(self, fd: int, its_end: int) -> None:
        self.shown = ""
        self._fd = fd
        self._its_end = its_end

    def until(self, text: str) -> None:
        """Return as soon as `text` has been written."""
        while text not in self.shown:
            assert self._more(), f"no {text!r} in {self.shown!r}"

    def until_closed(self) -> str:
        """All that has been written, when nobody can write any more."""
        self._let_go()
        while self._more():
            pass
        return self.shown

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._fd, keys.encode())

    def settings(self) -> list[object]:
        """How it treats what is typed."""
        return termios.tcgetattr(self._fd)

    def close(self) -> None:
        """Take it away."""
        self._let_go()
        os.close(self._fd)

    def _let_go(self) -> None:
        if self._its_end >= 0:
            os.close(self._its_end)
            self._its_end = -1

    def _more(self) -> bool:
        assert select.select([self._fd], [], [], SECONDS)[0], f"stuck after {self.shown!r}"
        try:
            found = os.read(self._fd, 1 << 16)
        except OSError:  # EIO: the other end is closed
            return False
        self.shown += found.decode()
        return bool(found)


@contextmanager
def on_terminal(
    *argv: object, output: int | None = None
) -> Iterator[tuple["subprocess.Popen[str]", Terminal]]:
    """Run the command with a terminal of 120 columns; with `output`, stdout goes there."""
    fd, its_end = pty.openpty()
    termios.tcsetwinsize(fd, (40, 120))
    terminal = Terminal(fd, its_end)
    command = subprocess.Popen(
        [*COMMAND, *map(str, argv)],
        stdin=its_end,
        stdout=its_end if output is None else output,
        stderr=its_end,
        text=True,
        env=environment() | {"TERM": "xterm"},
    )
    try:
        yield command, terminal
    finally:
        command.kill()
        command.communicate()
        terminal.close()
