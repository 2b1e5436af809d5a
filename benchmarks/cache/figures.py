"""Every work through every layer in turn, and the figures that come of it."""

import os
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import servers
from benchmarks.cache.layers import BARE, LAYERS, TMEMFS, Layer
from benchmarks.cache.slow import Kind
from benchmarks.cache.work import RANDOM, SEQUENTIAL, SMALL_FILES, Work, make_source, works
from benchmarks.kernel import drop_caches
from benchmarks.rounds import Figure, turns

COLD, WARM = PASSES = ("cold", "warm")
TARGETS = {
    **{(COLD, work): 1.10 for work in (SEQUENTIAL, *SMALL_FILES)},
    (WARM, RANDOM): 1 / 50,
    **{(WARM, work): 1 / 10 for work in SMALL_FILES},
}
"""How much of the bare directory's time tmemfs may take."""

SAYS = (
    "Before each pass, cold or warm, the kernel's caches are dropped, for all layers. For a cold"
    " pass the layer is new, and so is sshfs below it; for a warm one they have seen the cold one,"
    " and have of it what they keep themselves (sshfs: names and attributes)."
)


def lacking(kind: Kind) -> str | None:
    """Why this cannot be measured here at all; None where it can."""
    if os.geteuid() != 0:
        return "needs root, for the kernel's caches are dropped"
    return kind.lacking() or servers.lacking("git", "tar", "grep")


@dataclass(frozen=True)
class Pass:
    """What one run of a work took: seconds for each unit of it, and requests to the directory."""

    seconds: float
    requests: int


class CacheBenchmark:
    """The works on a directory, slow in the way of *kind*, with *data* and *files* small files.

    What they took is in `passes`, by work, layer, and whether cold or warm, round by round; why a
    layer is left out is in `notes`.
    """

    def __init__(self, kind: Kind, place: Path, data: bytes, files: int, reads: int) -> None:
        """*place* is an empty directory on a disk; *reads* is how many random reads there are."""
        self.passes: dict[tuple[str, str, str], list[Pass]] = {}
        self.notes = [f"{kind.says} {SAYS}"]
        self._kind = kind
        self._place = place
        self._data = data
        self._files = files
        self._reads = reads
        self._works: list[Work] = []

    def measure(self, rounds: int) -> None:
        """Do each work through each layer, *rounds* times. Raises OSError at a wrong byte."""
        store = self._place / "store"
        store.mkdir()
        with self._kind.store(store) as source:
            make_source(source, self._data, self._files)
            self._works = works(source, self._reads)
            layers = [layer.name for layer in LAYERS.values() if self._can_be_had(layer, source)]
            for work in self._works:
                for name in turns(layers, rounds):
                    passes = self._passes(source, LAYERS[name], work)
                    for when, found in zip(PASSES, passes, strict=True):
                        self.passes.setdefault((work.name, name, when), []).append(found)

    def figures(self) -> list[Figure]:
        """Each layer beside the bare directory, cold and warm; seconds for a unit of the work."""
        return [
            Figure(
                f"{layer}, {when} {work.name}",
                BARE,
                work.unit,
                self._seconds(work.name, layer, when),
                self._seconds(work.name, BARE, when),
                self._target(work.name, layer, when),
            )
            for when in PASSES
            for work in self._works
            for layer in LAYERS
            if layer != BARE and (work.name, layer, when) in self.passes
        ]

    def times(self) -> list[dict[str, Any]]:
        """What each work took through each layer, cold and warm: medians of the rounds."""
        return [
            {
                "work": work.name,
                "pass": when,
                "layer": layer,
                "unit": work.unit,
                "units": work.count,
                "seconds": statistics.median(seconds),
                "seconds_min": min(seconds),
                "seconds_max": max(seconds),
                "requests": statistics.median(
                    found.requests for found in self.passes[work.name, layer, when]
                ),
            }
            for work in self._works
            for when in PASSES
            for layer in LAYERS
            if (seconds := self._seconds(work.name, layer, when))
        ]

    def _target(self, work: str, layer: str, when: str) -> float | None:
        promised = layer == TMEMFS and self._kind.steady
        return TARGETS.get((when, work)) if promised else None

    def _can_be_had(self, layer: Layer, source: Path) -> bool:
        """Try a layer; leave out the one that cannot be had, but not ours."""
        reason = layer.lacking()
        if reason is None:
            try:
                with (
                    tempfile.TemporaryDirectory(dir=self._place) as place,
                    layer.over(source, Path(place)),
                ):
                    return True
            except OSError as error:
                if layer.name == TMEMFS:
                    raise
                reason = str(error)
        self.notes.append(f"{layer.name} is left out: {reason}")
        return False

    def _seconds(self, work: str, layer: str, when: str) -> tuple[float, ...]:
        return tuple(found.seconds for found in self.passes.get((work, layer, when), ()))

    def _passes(self, source: Path, layer: Layer, work: Work) -> Iterator[Pass]:
        """The cold pass and then the warm one, through a new layer on a new slow directory."""
        with (
            tempfile.TemporaryDirectory(dir=self._place) as place,
            self._kind.directory(source, Path(place)) as directory,
            layer.over(directory.path, Path(place)) as mount,
        ):
            for when in PASSES:
                drop_caches()
                work.load()
                before = directory.requests()
                try:
                    seconds = work.run(mount)
                except OSError as error:
                    error.add_note(f"that was {work.name}, {when}, through {layer.name}")
                    raise
                yield Pass(seconds / work.count, directory.requests() - before)


def time_rows(found: Sequence[dict[str, Any]], requests: str) -> list[tuple[str, ...]]:
    """A table of `CacheBenchmark.times`, milliseconds, and of the *requests* that are counted."""
    headings = ("work", "pass", "through", "ms", "min", "max", "of", requests)
    table: list[tuple[str, ...]] = [headings]
    for row in found:
        times = [f"{row[key] * 1e3:.3f}" for key in ("seconds", "seconds_min", "seconds_max")]
        names = [row[key] for key in ("work", "pass", "layer")]
        table.append((*names, *times, f"a {row['unit']}", f"{row['requests']:.0f}"))
    return table
