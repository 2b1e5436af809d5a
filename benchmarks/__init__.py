"""The figures of the README, each beside its peers in the same run: ``python -m benchmarks``.

Only ratios are worth comparing between machines, and on a busy one not even the times of one
minute and the next. So everything is measured in short rounds in which every variant has its
turn, a ratio is taken within each round, and the median of the rounds is the figure.
"""

import sys
from pathlib import Path

# The examples are programs, not a package; their helpers are imported by their plain names.
sys.path.append(str(Path(__file__).parent.parent / "examples"))
