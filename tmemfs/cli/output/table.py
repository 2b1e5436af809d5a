"""Rows written in the manners of util-linux: a table, raw for scripts, or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from tmemfs.cli.output.columns import Column, Kind, Row
from tmemfs.errors import one_line

_GAP = " "


def as_table(
    columns: Sequence[Column], rows: Sequence[Row], *, headings: bool, in_bytes: bool
) -> str:
    """An aligned table: text on the left, numbers on the right, no blanks at the end of a line."""
    cells = [[one_line(cell) for cell in row] for row in _cells(columns, rows, headings, in_bytes)]
    widths = [max(map(len, column), default=0) for column in zip(*cells, strict=True)]
    lines = (
        _GAP.join(
            cell.rjust(width) if column.on_the_right else cell.ljust(width)
            for cell, width, column in zip(row, widths, columns, strict=True)
        )
        for row in cells
    )
    return _joined(line.rstrip() for line in lines)


def as_raw(
    columns: Sequence[Column], rows: Sequence[Row], *, headings: bool, in_bytes: bool
) -> str:
    """One blank between cells, and blanks in cells as `\\x20`, so that a script can split it."""
    cells = _cells(columns, rows, headings, in_bytes)
    return _joined(" ".join(map(_without_blanks, row)) for row in cells)


def as_json(columns: Sequence[Column], rows: Sequence[Row], *, in_bytes: bool) -> str:
    """`{"tmemfs": [...]}`, an object for each row; sizes are strings unless `in_bytes`."""
    objects = [
        {column.name.lower(): _json_value(column, row, in_bytes) for column in columns}
        for row in rows
    ]
    return json.dumps({"tmemfs": objects}, indent=3) + "\n"


def _json_value(column: Column, row: Row, in_bytes: bool) -> str | int | float | None:
    value = column.value(row)
    if column.kind is Kind.SIZE and not in_bytes and value is not None:
        return column.written(row, in_bytes=False)
    return value


def _cells(
    columns: Sequence[Column], rows: Sequence[Row], headings: bool, in_bytes: bool
) -> list[list[str]]:
    if not rows:
        return []  # as lsblk and losetup: no heading over nothing
    top = [[column.name for column in columns]] if headings else []
    return top + [[column.written(row, in_bytes=in_bytes) for column in columns] for row in rows]


def _without_blanks(cell: str) -> str:
    return "".join(
        char
        if char.isprintable() and not char.isspace() and char != "\\"
        else "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))
        for char in cell
    )


def _joined(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
