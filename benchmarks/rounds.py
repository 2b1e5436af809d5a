"""Rounds in which every variant has its turn, and the ratios taken within each of them."""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Measure = Callable[[], float]
"""Does the work once; returns seconds for one unit of it (a page, a read)."""


@dataclass(frozen=True)
class Figure:
    """How much longer *subject* took than *peer* for one *unit*, round by round; 1.0 is as fast.

    Where the project has promised a ratio, *target* is the highest that keeps the promise.
    """

    subject: str
    peer: str
    unit: str
    seconds: tuple[float, ...]
    peer_seconds: tuple[float, ...]
    target: float | None = None

    @property
    def ratios(self) -> list[float]:
        return [mine / other for mine, other in zip(self.seconds, self.peer_seconds, strict=True)]

    @property
    def ratio(self) -> float:
        """The figure itself: the median of the rounds."""
        return statistics.median(self.ratios)

    @property
    def best(self) -> float:
        """The fastest round beside the peer's fastest: what is left where noise only ever adds."""
        return min(self.seconds) / min(self.peer_seconds)

    def as_dict(self) -> dict[str, Any]:
        """All of it in plain numbers."""
        return {
            "subject": self.subject,
            "peer": self.peer,
            "unit": self.unit,
            "ratio_min": min(self.ratios),
            "ratio": self.ratio,
            "ratio_max": max(self.ratios),
            "best": self.best,
            "seconds": statistics.median(self.seconds),
            "peer_seconds": statistics.median(self.peer_seconds),
            "rounds": len(self.ratios),
            "target": self.target,
        }


def turns(names: Sequence[str], rounds: int) -> Iterator[str]:
    """Each of *names* once a round; who comes first changes from round to round.

    So none always comes after the same other.
    """
    for number in range(rounds):
        first = number % len(names)
        yield from names[first:]
        yield from names[:first]


class Rounds:
    """The times of every variant, round by round."""

    def __init__(
        self, variants: Mapping[str, Measure], rounds: int, *, warm_up: bool = True
    ) -> None:
        """Run each variant once to warm up, unless it is to be cold, then *rounds* times."""
        names = list(variants)
        self.seconds: dict[str, list[float]] = {name: [] for name in names}
        for name in names if warm_up else ():
            variants[name]()
        for name in turns(names, rounds):
            self.seconds[name].append(variants[name]())

    def figure(self, subject: str, peer: str, unit: str, target: float | None = None) -> Figure:
        """Variant *subject* beside variant *peer*."""
        mine, other = self.seconds[subject], self.seconds[peer]
        return Figure(subject, peer, unit, tuple(mine), tuple(other), target)
