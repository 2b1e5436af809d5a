"""What happened between two looks, as figures."""

from typing import Any

import pytest

from tmemfs.cli.output.rates import with_rates


def look(uptime: float, gets: int = 0, found: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "pid": 1,
        "uptime_seconds": uptime,
        "pools": [{"name": "cache", "gets": gets, "found_gets": found, "pages": 7}],
        "swaps": [],
    } | more


def test_counters_have_rates_and_gauges_have_none() -> None:
    [pool] = with_rates(look(10, 100, 50), look(12, 300, 200))["pools"]
    assert (pool["gets/s"], pool["found_gets/s"]) == (100, 75)
    assert pool["recent_hits"] == 0.75
    assert (pool["gets"], pool["pages"]) == (300, 7)
    assert "pages/s" not in pool


def test_every_part_has_rates() -> None:
    def more(count: int) -> dict[str, Any]:
        return {
            "reclaim": {"evicted_pgs": count},
            "cache": {"backing_read_bytes": count, "open_files": count},
            "swaps": [{"name": "a", "overflow_reads": count, "size": count}],
        }

    now = with_rates(look(1, **more(5)), look(1.5, **more(10)))
    assert now["reclaim"]["evicted_pgs/s"] == 10
    assert now["cache"] == {"backing_read_bytes": 10, "backing_read_bytes/s": 10, "open_files": 10}
    assert now["swaps"] == [{"name": "a", "overflow_reads": 10, "overflow_reads/s": 10, "size": 10}]


def test_without_gets_there_is_no_share_of_them() -> None:
    [pool] = with_rates(look(1, 5, 5), look(2, 5, 5))["pools"]
    assert pool["gets/s"] == 0
    assert "recent_hits" not in pool


@pytest.mark.parametrize(
    "before",
    [
        None,
        look(2, 1),  # the same moment
        look(3, 1),  # a clock that went back
        look(1, 1, pid=2),  # another daemon
    ],
)
def test_what_cannot_be_compared_is_left_as_it_is(before: dict[str, Any] | None) -> None:
    now = look(2, 5)
    assert with_rates(before, now) == now


def test_what_is_new_has_no_rates_yet() -> None:
    before = look(1, 5, pools=[], reclaim={})
    now = look(2, 5, 5, reclaim={"evicted_pgs": 5}, cache={"backing_reads": 1})
    assert with_rates(before, now) == now


def test_the_looks_themselves_stay_as_they_are() -> None:
    before, now = look(1, 5), look(2, 6)
    with_rates(before, now)
    assert (before, now) == (look(1, 5), look(2, 6))
