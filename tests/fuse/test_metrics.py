"""The figures as Prometheus reads them."""

import re

SAMPLE = re.compile(r'([a-z_]+)(\{(?:[a-z]+="[^"\\\n]*",?)*\})? (-?[0-9.e+]+)')


def render(handlers) -> str:
    opened = handlers.control.open(
        handlers.control.lookup(handlers.control.directory.number, b"metrics").number
    )
    return bytes(opened.read(0, 1 << 20)).decode()


def test_every_line_is_a_sample_or_the_type_of_those_that_follow(handlers) -> None:
    kinds: dict[str, str] = {}
    seen: set[str] = set()
    text = render(handlers)
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            name, kind = line.removeprefix("# TYPE ").split(" ")
            assert name not in kinds, "the samples of one name belong together"
            kinds[name] = kind
            current = name
            continue
        matched = SAMPLE.fullmatch(line)
        assert matched, line
        assert matched[1] == current
        assert line.rpartition(" ")[0] not in seen, "a sample twice"
        seen.add(line.rpartition(" ")[0])
        assert (kinds[current] == "counter") == current.endswith("_total"), current
    assert kinds["tmemfs_mem_used_total_bytes"] == "gauge"
    assert kinds["tmemfs_pool_gets_total"] == "counter"


def test_every_number_of_the_status_is_there(handlers) -> None:
    handlers.rig.pool.put(1, 0, bytes(4096))
    handlers.rig.pool.get(1, 0)
    text = render(handlers)
    labels = '{pool="cache",kind="ephemeral"}'
    assert f"tmemfs_pool_found_gets_total{labels} 1\n" in text
    assert f"tmemfs_pool_same_pages{labels} 1\n" in text
    assert f"tmemfs_mem_limit_bytes {handlers.rig.core.budget}\n" in text
    assert 'tmemfs_swap_size_bytes{swap="swap0"} 1048576\n' in text
    assert "tmemfs_failsafe_count_total 0\n" in text
    status = handlers.control.status()
    numbers = sum(
        isinstance(value, int)
        for figures in (
            *(status["memory"], status["reclaim"]),
            *(status["pools"] + status["swaps"]),
        )
        for value in figures.values()
    )
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(samples) == numbers + 1
