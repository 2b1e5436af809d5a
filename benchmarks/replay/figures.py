"""What a trace shows: the policy beside its peers, and what compression adds."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.replay.policies import PEERS, peer_hits
from benchmarks.replay.pool import from_corpus, incompressible, replay
from benchmarks.replay.trace import Trace
from tmemfs.units import format_size

TMEMFS, EXACT, LRU = "tmemfs", "S3-FIFO", "LRU"
WITHIN = 0.01
"""How far below exact S3-FIFO the hit ratio may be."""
_ABOVE_LRU = ("zipf", "scan-mixed")


@dataclass(frozen=True)
class TraceFigures:
    """Hit ratios of one trace in a core of *budget* bytes and of its peers, from 0 to 1.

    In `policy`, no page compresses, and the peers have as many pages as the pool *held*. In
    `compression`, pages are real data, and the peer is an LRU of ``budget // page_size`` pages.
    """

    trace: str
    about: str
    page_size: int
    requests: int
    distinct: int
    budget: int
    held: int
    held_compressed: int
    policy: dict[str, float] = field(default_factory=dict)
    compression: dict[str, float] = field(default_factory=dict)

    @property
    def behind(self) -> float:
        """How far the hit ratio is below that of exact S3-FIFO; negative where it is above."""
        return self.policy[EXACT] - self.policy[TMEMFS]

    @property
    def policy_met(self) -> bool:
        """Whether the policy does what it should."""
        beats_lru = self.policy[TMEMFS] > self.policy[LRU] or self.trace not in _ABOVE_LRU
        return self.behind <= WITHIN and beats_lru

    @property
    def compression_met(self) -> bool:
        """Whether it hits more often than an LRU of as many bytes without compression."""
        return self.compression[TMEMFS] > self.compression[LRU]

    def as_dict(self) -> dict[str, Any]:
        """All of it in plain numbers and words."""
        return {
            **asdict(self),
            "policy_met": self.policy_met,
            "compression_met": self.compression_met,
        }


def measure(trace: Trace, budget: int, corpus: bytes) -> TraceFigures:
    """Replay *trace* through the core twice, and through every peer."""
    requests = len(trace.keys)
    raw = replay(trace, budget, incompressible(trace.page_size))
    real = replay(trace, budget, from_corpus(corpus, trace.page_size))
    peers = {name: peer_hits(name, trace.keys, raw.held) / requests for name in PEERS}
    uncompressed = peer_hits(LRU, trace.keys, budget // trace.page_size)
    return TraceFigures(
        trace.name,
        trace.about,
        trace.page_size,
        requests,
        trace.distinct,
        budget,
        raw.held,
        real.held,
        {TMEMFS: raw.hits / requests, **peers},
        {TMEMFS: real.hits / requests, LRU: uncompressed / requests},
    )


def policy_rows(figures: Sequence[TraceFigures]) -> list[tuple[str, ...]]:
    """A table of the policy: hit ratios in percent."""
    target = f"{EXACT} -{100 * WITHIN:.0f}"
    rows = [("trace", "requests", "distinct", "budget", "pages", TMEMFS, *PEERS, target)]
    for found in figures:
        ratios = (f"{100 * found.policy[name]:.2f}" for name in (TMEMFS, *PEERS))
        sizes = (str(found.requests), str(found.distinct), format_size(found.budget))
        rows.append((found.trace, *sizes, str(found.held), *ratios, _verdict(found.policy_met)))
    return rows


def compression_rows(figures: Sequence[TraceFigures]) -> list[tuple[str, ...]]:
    """A table of what compression adds: hit ratios in percent."""
    rows = [("trace", "budget", "page", "pages", "of LRU", TMEMFS, LRU, f"> {LRU}")]
    for found in figures:
        sizes = (format_size(found.budget), format_size(found.page_size))
        pages = (str(found.held_compressed), str(found.budget // found.page_size))
        ratios = (f"{100 * found.compression[name]:.2f}" for name in (TMEMFS, LRU))
        rows.append((found.trace, *sizes, *pages, *ratios, _verdict(found.compression_met)))
    return rows


def _verdict(met: bool) -> str:
    return "met" if met else "MISSED"
