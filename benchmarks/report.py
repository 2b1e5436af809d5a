"""What was measured, for people and for programs."""

import json
import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.rounds import Figure


class Report:
    """Prints what is measured as it comes, and keeps it for `write`."""

    def __init__(self, what: str, *, in_rounds: bool = True) -> None:
        self._found: dict[str, Any] = {"machine": machine(), "figures": [], "memory": []}
        if in_rounds:
            print(f"{what}; the ratio is the median of those")
            print("of the rounds, more than 1 is slower; best is that of the fastest rounds")
        else:
            print(what)
        print(", ".join(f"{key} {value}" for key, value in self._found["machine"].items()))

    def show(self, title: str, figures: list[Figure]) -> None:
        """One table of figures."""
        print(f"\n{title}\n{figures_table(figures)}", flush=True)
        self._found["figures"] += [{"title": title, **figure.as_dict()} for figure in figures]

    def show_memory(self, memory: list[dict[str, Any]]) -> None:
        """One table of what is in memory, by page size."""
        print(f"\nmemory, by page size\n{memory_table(memory)}", flush=True)
        self._found["memory"] += memory

    def show_rows(
        self,
        key: str,
        title: str,
        rows: Sequence[Sequence[str]],
        found: list[dict[str, Any]],
        left: int = 1,
    ) -> None:
        """A table of another kind, headings first; *found* is what `write` puts under *key*."""
        print(f"\n{title}\n{_aligned(rows, left=left)}", flush=True)
        self._found.setdefault(key, []).extend(found)

    def note(self, text: str) -> None:
        """What could not be measured, and why."""
        print(f"\n{text}", flush=True)

    def write(self, file: Path) -> None:
        """All of it as JSON."""
        file.write_text(json.dumps(self._found, indent=1) + "\n")


def machine() -> dict[str, Any]:
    """What the absolute times depend on."""
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "processors": os.cpu_count(),
        "python": platform.python_version(),
    }


def figures_table(figures: Iterable[Figure]) -> str:
    """One line for each figure: the ratio, its spread, the best rounds' ratio, and both times."""
    rows = [("subject", "beside", "ratio", "min", "max", "best", "us", "beside us", "target")]
    for figure in figures:
        found = figure.as_dict()
        rows.append(
            (
                figure.subject,
                figure.peer,
                _ratio(figure.ratio),
                _ratio(found["ratio_min"]),
                _ratio(found["ratio_max"]),
                _ratio(figure.best),
                f"{found['seconds'] * 1e6:.1f}",
                f"{found['peer_seconds'] * 1e6:.1f}",
                _verdict(figure),
            )
        )
    return _aligned(rows, left=2)


def memory_table(memory: Iterable[dict[str, Any]]) -> str:
    """One line for each page size and kind of work: what it took to keep what was read."""
    rows = [("after", "pages of", "MiB kept", "ratio", "MiB used", "metadata KiB")]
    for found in memory:
        kept, compressed = found["orig_data_size"], found["compr_data_size"]
        rows.append(
            (
                found["after"],
                f"{found['page_size'] >> 10} KiB",
                f"{kept / (1 << 20):.1f}",
                f"{kept / compressed:.2f}" if compressed else "-",
                f"{found['mem_used_total'] / (1 << 20):.1f}",
                f"{found['metadata_bytes'] / 1024:.0f}",
            )
        )
    return _aligned(rows, left=1)


def _verdict(figure: Figure) -> str:
    if figure.target is None:
        return ""
    met = "met" if figure.ratio <= figure.target else "MISSED"
    return f"<= {_ratio(figure.target)} {met}"


def _ratio(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.4f}"


def _aligned(rows: Sequence[Sequence[str]], left: int) -> str:
    """Columns side by side, the first *left* of them set left, numbers right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
