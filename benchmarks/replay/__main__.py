"""The command: replays one's own traces, or makes some, and shows how often the pool hits."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.corpus import corpus
from benchmarks.replay import policies
from benchmarks.replay.section import FULL, QUICK, budgets, replay_all, show
from benchmarks.replay.trace import BadTrace, read_trace
from benchmarks.report import Report
from tmemfs.errors import TmemfsError
from tmemfs.tmem import MIN_BUDGET
from tmemfs.units import format_size, parse_size

_CORPUS_BYTES = 64 << 20


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replay", description=__doc__)
    parser.add_argument(
        "--trace", type=Path, nargs="+", metavar="FILE", help="replay these (OBJECT INDEX [COUNT])"
    )
    parser.add_argument(
        "--budget", type=_budget, help="for --trace; a tenth, a quarter and a half of its bytes"
    )
    parser.add_argument("--write", type=Path, metavar="DIR", help="keep the traces that are made")
    parser.add_argument("--quick", action="store_true", help="small traces: does it all run?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    options = parser.parse_args(argv)
    if options.budget and not options.trace:
        parser.error("--budget is for --trace")
    if options.write and not options.write.is_dir():
        parser.error(f"--write: {options.write} is not a directory")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    options = parse(argv)
    size = QUICK if options.quick else FULL
    try:
        if reason := policies.lacking():
            raise OSError(reason)
        traces = [read_trace(file) for file in options.trace or ()]
        report = Report(f"replays, {'quick' if options.quick else 'full'}", in_rounds=False)
        data = corpus(_CORPUS_BYTES)
        if traces:
            pairs = [
                (t, b) for t in traces for b in ([options.budget] if options.budget else budgets(t))
            ]
            show(report, pairs, data)
        else:
            # Not in /tmp, which may be memory: what is recorded is to be of real files.
            with tempfile.TemporaryDirectory(prefix="tmemfs-replay-", dir="/var/tmp") as place:
                replay_all(report, Path(place), size, data, options.write)
        if options.json:
            report.write(options.json)
    except (BadTrace, OSError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    return 0


def _budget(text: str) -> int:
    try:
        budget = parse_size(text)
    except TmemfsError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if budget < MIN_BUDGET:
        raise argparse.ArgumentTypeError(f"the smallest is {format_size(MIN_BUDGET)}")
    return budget


if __name__ == "__main__":
    sys.exit(main())
