"""A bar on a terminal for what takes a while; nothing where there is no terminal, or no rich.

Whatever rich needs is loaded when a bar is shown, so that the command line is quick without one.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tmemfs.errors import as_error, one_line


class Progress:
    """How far something is, and what of it failed; shown to nobody. For any thread."""

    def __init__(self) -> None:
        self.failures = 0
        self._lock = threading.Lock()

    def expect(self, amount: int) -> None:
        """There is so much more to do."""

    def advance(self, amount: int) -> None:
        """So much more is done."""

    def failed(self, exc: OSError) -> None:
        """One thing of many failed: it is named in a line of its own."""
        with self._lock:
            self.failures += 1
            self.say(f"tmemfs: {as_error(exc)}")

    def say(self, line: str) -> None:
        """Write a line to stderr."""
        print(one_line(line), file=sys.stderr, flush=True)


@contextmanager
def progress(title: str, *, sizes: bool, quiet: bool) -> Iterator[Progress]:
    """A bar on stderr while the context lasts; amounts are bytes with `sizes`, else a number."""
    if quiet or not sys.stderr.isatty():
        yield Progress()
        return
    try:
        from rich import progress as rich
        from rich.console import Console
    except ImportError:
        yield Progress()
        return
    amounts: list[rich.ProgressColumn] = (
        [rich.DownloadColumn(binary_units=True), rich.TransferSpeedColumn()]
        if sizes
        else [rich.MofNCompleteColumn()]
    )
    bar = rich.Progress(
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        *amounts,
        rich.TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task(title, total=0)

    class Shown(Progress):
        _expected = 0

        def expect(self, amount: int) -> None:
            with self._lock:
                self._expected += amount
                bar.update(task, total=self._expected)

        def advance(self, amount: int) -> None:
            bar.advance(task, amount)

        def say(self, line: str) -> None:
            bar.console.print(one_line(line), markup=False, highlight=False, soft_wrap=True)

    with bar:
        yield Shown()
