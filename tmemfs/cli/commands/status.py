"""`tmemfs status`: the figures of all mounts, one row for each pool."""

from __future__ import annotations

import argparse
import sys

from tmemfs.cli.figures import (
    Figures,
    find_mount,
    lacking_steps,
    read_figures,
    visible_mounts,
    volumes_of,
)
from tmemfs.cli.output import columns, table
from tmemfs.cli.output.columns import Row
from tmemfs.cli.parser import Parser
from tmemfs.cli.system.swapvolume import Volume
from tmemfs.errors import TmemfsError, UsageError
from tmemfs.linux import loops, system
from tmemfs.linux.system import Mount


def parser() -> Parser:
    """The command line of the command."""
    made = Parser(
        "tmemfs status",
        "Show the figures of the tmemfs mount at MOUNTPOINT, or of all, one row for each pool.",
        f"Available output columns:\n{columns.explain()}\n\n"
        f"The default is {columns.DEFAULT},\n"
        f"and {columns.SWAP} where there are swap volumes.\n"
        "A figure is left empty where there is nothing to divide by, or the daemon has none.",
    )
    made.add_argument("mountpoint", metavar="MOUNTPOINT", nargs="?", help="where it is mounted")
    made.add_argument("-b", "--bytes", action="store_true", help="print sizes in bytes")
    made.add_argument("-J", "--json", action="store_true", help="print JSON")
    made.add_argument("-n", "--noheadings", action="store_true", help="print no headings")
    made.add_argument(
        "-o",
        "--output",
        metavar="LIST",
        help="columns to print, separated by commas; +LIST adds to the default ones",
    )
    made.add_argument("--output-all", action="store_true", help="print all columns")
    made.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="say what the daemon of a swap volume was not permitted to do to be safe (UNSAFE)",
    )
    made.add_argument(
        "-r", "--raw", action="store_true", help="print without alignment, for scripts"
    )
    return made


def run(arguments: argparse.Namespace) -> int:
    """Print the figures; a mount without any is named on stderr and gives the exit code."""
    if arguments.raw and arguments.json:
        raise UsageError("--raw and --json exclude each other")
    wanted = ",".join(columns.COLUMNS) if arguments.output_all else arguments.output
    columns.choose(wanted)  # before any mount is asked
    rows, failures = _collect(_mounts(arguments.mountpoint))
    chosen = columns.choose(wanted, swap=any(row.volume for row in rows))
    if arguments.json:
        text = table.as_json(chosen, rows, in_bytes=arguments.bytes)
    else:
        write = table.as_raw if arguments.raw else table.as_table
        text = write(chosen, rows, headings=not arguments.noheadings, in_bytes=arguments.bytes)
    sys.stdout.write(text)
    sys.stdout.flush()
    if arguments.verbose:
        _warn(rows)
    for failure in failures:
        print(f"tmemfs: {failure}", file=sys.stderr)
    return max((failure.exit_code for failure in failures), default=0)


def _mounts(mountpoint: str | None) -> list[Mount]:
    if mountpoint is not None:
        return [find_mount(system.canonical_path(mountpoint))]
    return visible_mounts()


def _collect(mounts: list[Mount]) -> tuple[list[Row], list[TmemfsError]]:
    rows: list[Row] = []
    failures: list[TmemfsError] = []
    for mount in mounts:
        try:
            figures = read_figures(mount)
        except TmemfsError as exc:
            failures.append(exc)
            continue
        # The mountpoint of the table of mounts, not the daemon's: it may have been moved since.
        figures["lacking"] = ",".join(step["step"] for step in lacking_steps(figures)) or None
        volumes = volumes_of(figures)
        for pool in figures.get("pools") or [{}]:
            volume = volumes.get(pool.get("name"), {})
            rows.append(
                Row(mount.mountpoint, figures, pool, volume and _with_device(mount, volume))
            )
    return rows, failures


def _with_device(mount: Mount, volume: Figures) -> Figures:
    """`volume` with what the kernel makes of it: loop devices, and swap on them."""
    found = Volume(volume["name"], mount.mountpoint, private=False).loops()
    if not found:
        return volume
    seen: Figures = {"device": ",".join(loop.device for loop in found)}
    swaps = [swap for loop in found for swap in loops.swaps_on(loop)]
    if swaps:
        seen["used"] = sum(swap.used for swap in swaps)
        seen["priority"] = max(swap.priority for swap in swaps)
    return volume | seen


def _warn(rows: list[Row]) -> None:
    """Say what the daemons of swap volumes could not do to be safe, for people."""
    told = {(row.mountpoint, step["text"]) for row in rows for step in lacking_steps(row.mount)}
    for mountpoint, text in sorted(told):
        print(f"tmemfs: {mountpoint}: {text}", file=sys.stderr)
