"""`tmemfs top` on a terminal, drawn by rich."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tmemfs.cli.output import topcolumns
from tmemfs.cli.output.columns import COLUMNS, Column, Row
from tmemfs.cli.output.watching import Seen
from tmemfs.errors import one_line
from tmemfs.units import format_size

_BAR = 40  # cells
_STYLES = {"ephemeral": "green", "persistent": "yellow", "tables": "cyan"}


class Screen:
    """The terminal, taken over: figures to look at, keys to press."""

    def __init__(self, live: Live, keys: int | None) -> None:
        self._live = live
        self._keys = keys

    def show(self, seen: Sequence[Seen], delay: float) -> None:
        """Draw what was seen."""
        parts = [part for mount in seen for part in _drawn(mount)]
        hint = Text(f"every {delay:g} s; q ends", style="dim")
        self._live.update(Group(*parts, hint), refresh=True)

    def wait(self, seconds: float) -> bool:
        """Wait; True as soon as somebody wants it to end."""
        keys = [self._keys] if self._keys is not None else []
        if not select.select(keys, [], [], seconds)[0]:
            return False
        assert self._keys is not None
        pressed = os.read(self._keys, 64)
        return not pressed or b"q" in pressed.lower()


@contextmanager
def screen() -> Iterator[Screen]:
    """Take over the terminal for as long as the context lasts, and give it back as it was."""
    keys = sys.stdin.fileno() if sys.stdin.isatty() else None
    before = termios.tcgetattr(keys) if keys is not None else None
    try:
        if keys is not None:
            tty.setcbreak(keys)
        with Live(console=Console(), screen=True, auto_refresh=False) as live:
            yield Screen(live, keys)
    finally:
        if keys is not None and before is not None:
            termios.tcsetattr(keys, termios.TCSADRAIN, before)


def _drawn(seen: Seen) -> list[RenderableType]:
    if seen.failure is not None:
        return [Text(str(seen.failure), style="bold red"), Text()]
    rows = seen.rows()
    top = Row(seen.mountpoint, seen.figures, {})
    head = Text(one_line(seen.mountpoint), style="bold")
    head.append(f"  shows {one_line(str(seen.figures.get('source')))}", style="dim")
    head.append(f"  up {COLUMNS['UPTIME'].written(top, in_bytes=False)}", style="dim")
    reclaim = Text(
        "  ".join(f"{column.name} {_cell(column, top) or '-'}" for column in topcolumns.RECLAIM)
    )
    return [head, _bar(topcolumns.memory(seen.figures)), reclaim, _pools(rows), Text()]


def _bar(memory: topcolumns.Memory) -> Text:
    """The budget as a bar, by what takes it."""
    bar, drawn, sum_ = Text("["), 0, 0
    for kind, style in _STYLES.items():
        sum_ += getattr(memory, kind)
        # Each part ends where it would end in a bar without cells, so that all add up.
        end = min(round(_BAR * sum_ / memory.budget), _BAR)
        bar.append("|" * (end - drawn), style=style)
        drawn = end
    bar.append(
        " " * (_BAR - drawn) + f"] {format_size(memory.used)} of {format_size(memory.budget)}:"
    )
    for kind, style in _STYLES.items():
        bar.append(f"  {kind} {format_size(getattr(memory, kind))}", style=style)
    return bar


def _pools(rows: Sequence[Row]) -> Table:
    # Columns that have nothing to say, as of overflow where there is none, only take room.
    shown = [column for column in topcolumns.POOL if any(_cell(column, row) for row in rows)]
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in shown:
        table.add_column(
            column.name, justify="right" if column.on_the_right else "left", no_wrap=True
        )
    for row in rows:
        table.add_row(*(Text(one_line(_cell(column, row))) for column in shown))
    return table


def _cell(column: Column, row: Row) -> str:
    return column.written(row, in_bytes=False)
