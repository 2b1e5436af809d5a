"""The command: runs machines out of memory, each in a guest, and says which of them go on."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.guest.image import lacking
from benchmarks.guest.rows import ROWS
from benchmarks.guest.table import measure


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guest", description=__doc__)
    names = [row.name for row in ROWS]
    parser.add_argument(
        "--rows", nargs="+", metavar="ROW", choices=names, default=names, help=", ".join(names)
    )
    parser.add_argument("--rounds", type=int, default=3, help="guests for each row (3)")
    parser.add_argument("--consoles", type=Path, metavar="DIR", help="keep what each guest said")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    options = parse(argv)
    if reason := lacking():
        sys.exit(f"benchmarks: guest: {reason}")
    rows = [row for row in ROWS if row.name in options.rows]
    try:
        for text in measure(rows, options.rounds, options.consoles):
            print(text, flush=True)
    except OSError as error:
        sys.exit(f"benchmarks: guest: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
