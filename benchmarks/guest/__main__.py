"""The command: runs machines out of memory, each in a guest, and says which of them go on."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.guest.image import image, lacking
from benchmarks.guest.machine import run
from benchmarks.guest.rows import ROWS, Row
from benchmarks.guest.table import head, line


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guest", description=__doc__)
    names = [row.name for row in ROWS]
    parser.add_argument("--rows", nargs="+", choices=names, default=names, help="only these")
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


def measure(rows: Sequence[Row], rounds: int, consoles: Path | None = None) -> Iterator[str]:
    """Run *rounds* guests of each row, one at a time; the table, line by line as it is known."""
    booted = image()
    if consoles is not None:
        consoles.mkdir(parents=True, exist_ok=True)
    yield from head()
    for row in rows:
        outcomes = []
        for number in range(rounds):
            outcomes.append(run(row, booted))
            if consoles is not None:
                (consoles / f"{row.name}.{number}").write_text(outcomes[-1].console)
        yield line(row, outcomes)


if __name__ == "__main__":
    sys.exit(main())
