"""The figures as Prometheus reads them."""

import os
import re

import pytest

from tmemfs import metrics
from tmemfs.glossary import FIGURES, Figure, Unit

SAMPLE = re.compile(r'([a-z_]+)(\{(?:[a-z]+="[^"\\\n]*",?)*\})? (-?[0-9.e+]+)')


async def render(handlers) -> str:
    opened = await handlers.control.open(
        handlers.control.lookup(handlers.control.directory.number, b"metrics").number, os.O_RDONLY
    )
    return bytes(opened.read(0, 1 << 20)).decode()


async def test_every_sample_comes_after_the_help_and_the_type_of_its_name(handlers) -> None:
    kinds: dict[str, str] = {}
    seen: set[str] = set()
    text = await render(handlers)
    assert text.endswith("\n")
    helped = current = ""
    for line in text.splitlines():
        if line.startswith("# HELP "):
            helped, meaning = line.removeprefix("# HELP ").split(" ", 1)
            assert meaning
            continue
        if line.startswith("# TYPE "):
            current, kind = line.removeprefix("# TYPE ").split(" ")
            assert current == helped
            assert current not in kinds, "the samples of one name belong together"
            kinds[current] = kind
            continue
        matched = SAMPLE.fullmatch(line)
        assert matched, line
        assert matched[1] == current
        assert line.rpartition(" ")[0] not in seen, "a sample twice"
        seen.add(line.rpartition(" ")[0])
        assert (kinds[current] == "counter") == current.endswith("_total"), current
    assert kinds["tmemfs_mem_used_total_bytes"] == "gauge"
    assert kinds["tmemfs_pool_gets_total"] == "counter"


async def test_every_number_of_the_status_is_there(handlers) -> None:
    handlers.rig.pool.put(1, 0, bytes(4096))
    handlers.rig.pool.get(1, 0)
    text = await render(handlers)
    labels = '{pool="cache",kind="ephemeral"}'
    assert f"tmemfs_pool_found_gets_total{labels} 1\n" in text
    assert f"tmemfs_pool_same_pages{labels} 1\n" in text
    assert f"tmemfs_mem_limit_bytes {handlers.rig.core.budget}\n" in text
    assert 'tmemfs_swap_size_bytes{swap="swap0"} 1048576\n' in text
    assert "tmemfs_failsafe_requests_total 0\n" in text
    assert 'tmemfs_mount_info{version="1.2.3",source="/s",mountpoint="/m"} 1\n' in text
    status = handlers.mount.status()
    numbers = sum(
        isinstance(value, int)
        for figures in (
            *(status["memory"], status["reclaim"], status.get("cache", {})),
            *(status["pools"] + status["swaps"]),
        )
        for value in figures.values()
    )
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(samples) == numbers + 3, "beside them: the mount, its time, and failures"


@pytest.mark.parametrize(
    ("source", "written"),
    [
        ('a"b', r"a\"b"),
        ("a\\b", r"a\\b"),
        ("a\nb", r"a\nb"),
        ("ä {=,}", "ä {=,}"),
        ("a\udcffb", r"a\\udcffb"),  # a byte that is no UTF-8
    ],
)
def test_any_path_is_a_label(handlers, source: str, written: str) -> None:
    status = handlers.mount.status() | {"source": source}
    text = metrics.render(status)
    assert text.encode().decode() == text
    assert f'source="{written}",mountpoint="/m"' in text


def test_an_older_or_a_newer_status_is_rendered(handlers) -> None:
    status = handlers.mount.status()
    status.pop("cache", None)
    status["memory"]["a_figure_that_nobody_explained"] = 5
    text = metrics.render(status)
    assert "tmemfs_mem_limit_bytes " in text
    assert "nobody_explained" not in text


@pytest.mark.parametrize(
    ("place", "figure", "name"),
    [
        (("memory", "rss_bytes"), FIGURES["memory", "rss_bytes"], "tmemfs_rss_bytes"),
        (("pool", "page_size"), FIGURES["pool", "page_size"], "tmemfs_pool_page_size_bytes"),
        (
            ("cache", "backing_read_bytes"),
            FIGURES["cache", "backing_read_bytes"],
            "tmemfs_cache_backing_read_bytes_total",
        ),
        (("mount", "x_seconds"), Figure("", Unit.SECONDS, False), "tmemfs_x_seconds"),
    ],
)
def test_the_unit_and_then_the_kind_end_a_name(
    place: tuple[str, str], figure: Figure, name: str
) -> None:
    assert metrics.metric_name(*place, figure) == name
