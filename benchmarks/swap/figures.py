"""The program on every peer in turn, and the figures that come of it."""

import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from memory_limit import memory_controller

from benchmarks.rounds import Figure, turns
from benchmarks.swap.capacity import Capacity, measure
from benchmarks.swap.peers import (
    NBD_SPARSE,
    NBD_ZSTD,
    NULL_PYFUSE3,
    TMEMFS,
    Device,
    Peer,
    swapping,
)
from benchmarks.swap.program import (
    PAGE,
    STEPS,
    Program,
    Step,
    WrongPage,
    compile_program,
    stored,
)
from tmemfs.cli.interrupts import Undo, undoing

SWAPS = Path("/proc/swaps")
ZSWAP = Path("/sys/module/zswap/parameters/enabled")
TARGETS = {NULL_PYFUSE3: 1.5, NBD_SPARSE: 1.0, NBD_ZSTD: 1.0}
"""How much longer tmemfs may take than each of them, at each step of the program."""


def lacking() -> str | None:
    """Why this cannot be measured here at all; None where it can."""
    if os.geteuid() != 0:
        return "needs root"
    if memory_controller() is None:
        return "needs the memory controller of cgroups"
    if ZSWAP.exists() and ZSWAP.read_text().strip() == "Y":
        return f"zswap would take the pages before any device sees them (echo N > {ZSWAP})"
    return None if Path("/dev/loop-control").exists() else "needs loop devices (modprobe loop)"


class SwapBenchmark:
    """The same *pages* pages of *corpus* on each of *peers*, of which tmemfs is the first.

    What they were found to do is in `capacity` and `runs`, why one is left out in `notes`.
    """

    def __init__(self, peers: Sequence[Peer], place: Path, corpus: bytes, pages: int) -> None:
        """*place* is an empty directory on a disk."""
        self.capacity: list[Capacity] = []
        self.runs: dict[str, list[dict[str, Step]]] = {}
        self.notes: list[str] = []
        self._peers = {peer.name: peer for peer in peers}
        self._place = place
        self._corpus = corpus
        self._pages = pages

    def measure(self, rounds: int) -> None:
        """Try each peer and see what it holds, then run the program on each, *rounds* times.

        Raises WrongPage at the first one.
        """
        if others := SWAPS.read_text().splitlines()[1:]:
            names = ", ".join(line.split()[0] for line in others)
            # Priorities do not keep it all away: a processor fills the cluster that it has begun.
            self.notes.append(f"other swap is on, which may take some of the pages: {names}")
        with undoing() as undo:
            for peer in tuple(self._peers.values()):
                self._try(undo, peer)
            self.runs = {name: [] for name in self._peers}
            program = compile_program(self._place)
            with stored(self._corpus) as corpus:
                for name in turns(list(self._peers), rounds):
                    self.runs[name].append(
                        self._run(undo, self._peers[name], Program(program, corpus, self._pages))
                    )

    def figures(self) -> list[Figure]:
        """tmemfs beside each of the others, step by step; seconds a page."""
        others = [name for name in self.runs if name != TMEMFS]
        return [
            Figure(
                f"{TMEMFS} swap, {step}",
                other,
                "page",
                self._of_rounds(TMEMFS, step, lambda found: found.seconds_a_page),
                self._of_rounds(other, step, lambda found: found.seconds_a_page),
                TARGETS.get(other),
            )
            for step in STEPS
            for other in others
        ]

    def faults(self) -> list[dict[str, Any]]:
        """Seconds a page and of one fault, by device and step: medians of the rounds."""
        return [
            {
                "device": name,
                "step": step,
                "seconds_a_page": self._median(name, step, lambda found: found.seconds_a_page),
                "p50": self._median(name, step, lambda found: found.p50),
                "p99": self._median(name, step, lambda found: found.p99),
                "faults_a_page": self._median(name, step, lambda found: found.faults / found.pages),
            }
            for name in self.runs
            for step in STEPS
        ]

    def _of_rounds(
        self, name: str, step: str, figure: Callable[[Step], float]
    ) -> tuple[float, ...]:
        return tuple(figure(run[step]) for run in self.runs[name])

    def _median(self, name: str, step: str, figure: Callable[[Step], float]) -> float:
        return statistics.median(self._of_rounds(name, step, figure))

    def _try(self, undo: Undo, peer: Peer) -> None:
        """See what a peer holds and that it can be swapped to; leave out the one that cannot."""
        reason = peer.lacking()
        if reason is None:
            try:
                with self._ready(undo, peer) as (device, stack):
                    found = measure(peer.name, device, self._corpus, self._pages)
                    with undo.held():
                        stack.enter_context(swapping(device))
            except OSError as error:
                if peer.name == TMEMFS:
                    raise
                reason = str(error)
            else:
                self.capacity += [found] if found else []
        if reason is not None:
            self.notes.append(f"{peer.name} is left out: {reason}")
            del self._peers[peer.name]

    def _run(self, undo: Undo, peer: Peer, program: Program) -> dict[str, Step]:
        with self._ready(undo, peer) as (device, stack):
            with undo.held():
                swapped_out = stack.enter_context(swapping(device))
            try:
                return program.run(swapped_out)
            except (OSError, WrongPage) as error:
                error.add_note(f"that was on {peer.name}")
                raise

    @contextmanager
    def _ready(self, undo: Undo, peer: Peer) -> Iterator[tuple[Device, ExitStack]]:
        """Set up a new device of *peer*, and take it down with what was put onto the stack."""
        stack = undo.enter_context(ExitStack())
        # More slots than pages: one that was read keeps its slot, and a swap device that is full,
        # of pages of other programs too, is the end of the program.
        size = self._pages * PAGE * 3 // 2
        try:
            with undo.held():
                place = stack.enter_context(tempfile.TemporaryDirectory(dir=self._place))
                device = stack.enter_context(peer.device(Path(place), size))
            yield device, stack
        finally:
            with undo.held():
                stack.close()


def fault_rows(found: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """A table of `faults`, microseconds: one line for each step on each device."""
    headings = ("step", "device", "us a page", "fault p50", "fault p99", "faults a page")
    table: list[tuple[str, ...]] = [headings]
    for row in sorted(found, key=lambda row: STEPS.index(row["step"])):
        times = [f"{row[key] * 1e6:.1f}" for key in ("seconds_a_page", "p50", "p99")]
        table.append((row["step"], row["device"], *times, f"{row['faults_a_page']:.2f}"))
    return table
