"""`tmemfs set`: changes how a mount works while it is in use, or shows what could be changed."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import NamedTuple

from tmemfs.cli.figures import (
    Figures,
    control_file,
    find_mount,
    read_figures,
    refuse_read_only,
    write_control,
)
from tmemfs.cli.parser import Parser
from tmemfs.cli.promise import broken_promise
from tmemfs.errors import MountFailure, NotPermitted, UsageError
from tmemfs.linux import system
from tmemfs.linux.system import Mount
from tmemfs.units import format_size, parse_size

_EPILOG = """\
keys:
  budget=SIZE     the memory that all pages together may take; less than before takes pages away
  readahead=SIZE  the most that is read ahead of who reads in order; 0 for nothing

sizes:
  4096, 512M, 1.5G (binary units), or 25% of the memory (the machine's, or the cgroup's limit)

Either all is changed, or nothing. Without KEY=VALUE, the values of now are printed.

exit codes:
  0  it is changed
  1  not permitted
  2  wrong usage, or a value that cannot be
 32  it cannot be changed now: the budget does not hold what is swapped out, or all is read-only
"""


class Knob(NamedTuple):
    """One setting as the daemon tells it: its value, and between what it may be, in bytes."""

    value: int
    least: int
    most: int


def parser() -> Parser:
    """The command line of the command."""
    made = Parser("tmemfs set", "Change how the mount at MOUNTPOINT works, at once.", _EPILOG)
    made.add_argument("mountpoint", metavar="MOUNTPOINT", help="where it is mounted")
    made.add_argument("settings", metavar="KEY=VALUE", nargs="*", help="what to change")
    return made


def run(arguments: argparse.Namespace) -> int:
    """Print the settings, or change them."""
    mount = find_mount(system.canonical_path(arguments.mountpoint))
    figures = read_figures(mount)
    knobs = _knobs(mount, figures)
    if not arguments.settings:
        for name, knob in knobs.items():
            print(f"{name}={_exactly(knob.value)}")
        return 0
    wanted = _wanted(arguments.settings, knobs)
    refuse_read_only(mount)
    for name in wanted:
        if not os.access(control_file(mount, name), os.W_OK):
            raise NotPermitted(
                f"{name}: only the user who mounted {mount.mountpoint} may change it"
            )
    with ExitStack() as undo:
        for name, size in wanted.items():
            _write(mount, name, size)
            undo.callback(_put_back, mount, name, knobs[name].value)
        undo.pop_all()
    if "budget" in wanted and (line := broken_promise(read_figures(mount))):
        print(f"tmemfs: {mount.mountpoint}: {line}", file=sys.stderr)
    return 0


def _knobs(mount: Mount, figures: Figures) -> dict[str, Knob]:
    told = figures.get("knobs")
    if not isinstance(told, dict) or not told:
        raise MountFailure(f"{mount.mountpoint}: its daemon is too old to be told by 'tmemfs set'")
    return {name: Knob(knob["value"], knob["least"], knob["most"]) for name, knob in told.items()}


def _wanted(settings: list[str], knobs: Mapping[str, Knob]) -> dict[str, int]:
    """What is to be set to how many bytes. Raises UsageError for what cannot be."""
    wanted: dict[str, int] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if name not in knobs:
            raise UsageError.unknown("key", name, knobs)
        if not equals:
            raise UsageError(f"{name}: write {name}=SIZE")
        if name in wanted:
            raise UsageError(f"{name}: is given twice")
        try:
            wanted[name] = parse_size(text)
        except UsageError as exc:
            raise UsageError(f"{name}: {exc}") from None
        knob = knobs[name]
        if not knob.least <= wanted[name] <= knob.most:
            between = f"{format_size(knob.least)} to {format_size(knob.most)}"
            raise UsageError(f"{name}: {text} is not from {between}")
    return wanted


def _write(mount: Mount, name: str, size: int) -> None:
    try:
        write_control(mount, name, str(size))
    except OSError as exc:
        if exc.errno == errno.EBUSY:
            raise MountFailure(
                f"{name}: {format_size(size)} does not hold what is swapped out to "
                f"{mount.mountpoint}; it stays as it was"
            ) from None
        if exc.errno == errno.EINVAL:
            raise UsageError(f"{name}: cannot be {format_size(size)}") from None
        raise


def _put_back(mount: Mount, name: str, size: int) -> None:
    with suppress(Exception):  # what is to be told is why the other one failed
        _write(mount, name, size)


def _exactly(size: int) -> str:
    """`size` as `parse_size` reads it back, without loss."""
    short = format_size(size)
    return short if parse_size(short) == size else str(size)
