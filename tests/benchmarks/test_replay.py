"""Replays: traces as texts, made-up ones, and what the order of reclaim is to reach on them."""

import json
from pathlib import Path

import pytest

from benchmarks.corpus import corpus
from benchmarks.replay.__main__ import main
from benchmarks.replay.figures import measure
from benchmarks.replay.generators import GENERATORS, long_loop, loop, scan_mixed, zipf
from benchmarks.replay.policies import lacking
from benchmarks.replay.pool import incompressible, replay
from benchmarks.replay.trace import INDEX_BITS, BadTrace, read_trace, write_trace

BUDGET = 16 << 20
PAGES = BUDGET // 4096
REQUESTS = 50_000

peers = pytest.mark.skipif(lacking() is not None, reason=str(lacking()))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "some.trace"


def test_a_trace_is_read(file: Path) -> None:
    file.write_text(
        "# tmemfs trace, pages of 16384 bytes\n\nb/c 7 3  # a run\na 0\nb/c 4294967295\n"
    )
    trace = read_trace(file)
    assert [divmod(key, 1 << INDEX_BITS) for key in trace.keys] == [
        *((0, 7), (0, 8), (0, 9)),
        (1, 0),
        (0, 2**32 - 1),
    ]
    assert (trace.page_size, trace.distinct, trace.name) == (16384, 5, "some.trace")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("a", "words"),
        ("a 1 2 3", "words"),
        ("a x", "'x' is not a decimal number"),
        ("a -1", "'-1' is not"),
        ("a 1 0", "cannot be"),
        ("a 4294967295 2", "cannot be"),
        ("a 0 4294967296", "requests"),
    ],
)
def test_a_bad_line_is_named(
    file: Path, line: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(f"# here\na 1\n{line}\n")
    with pytest.raises(BadTrace, match=rf"some\.trace:3: .*{says}"):
        read_trace(file)


@pytest.mark.parametrize("text", ["", "# pages of 8192 bytes\n", "# pages of 5000 bytes\na 0\n"])
def test_a_file_that_is_no_trace(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(BadTrace, match=r"some\.trace: "):
        read_trace(file)


@pytest.mark.parametrize("generator", GENERATORS)
def test_made_up_traces_are_the_same_each_time_and_as_texts(generator, file: Path) -> None:
    trace = generator(100, 3000)
    assert len(trace.keys) == 3000
    assert trace.keys == generator(100, 3000).keys
    write_trace(trace, file)
    again = read_trace(file)
    assert again.page_size == trace.page_size
    numbers: dict[int, int] = {}  # objects are numbered in the order in which they come
    for key in trace.keys:
        numbers.setdefault(key >> INDEX_BITS, len(numbers))
    mask = (1 << INDEX_BITS) - 1
    assert list(again.keys) == [
        numbers[key >> INDEX_BITS] << INDEX_BITS | key & mask for key in trace.keys
    ]


def test_made_up_traces_are_what_they_say() -> None:
    assert list(loop(10, 30).keys) == [*range(12), *range(12), *range(6)]
    assert long_loop(10, 100).distinct == 40
    often = zipf(100, 10_000).keys
    most = max(map(often.count, set(often)))
    assert 0.1 < most / 10_000 < 0.17, "one in 7.5: the sum of 1/k to 1000"
    scanned = [key for key in scan_mixed(100, 3000).keys if key >> INDEX_BITS]
    assert len(scanned) == len(set(scanned)) == 1000


def test_what_fits_misses_once() -> None:
    trace = loop(100, 1000)
    done = replay(trace, BUDGET, incompressible(4096))
    assert (done.hits, done.held) == (1000 - 120, 120)


@peers
@pytest.mark.parametrize("generator", GENERATORS)
def test_as_good_as_exact_s3_fifo_and_better_than_lru(generator) -> None:
    figures = measure(generator(PAGES, REQUESTS), BUDGET, corpus(4 << 20))
    assert 0.9 * PAGES < figures.held < PAGES
    assert figures.policy_met, figures.policy
    assert figures.compression_met, figures.compression


@peers
def test_the_command_replays_ones_own_trace(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_trace(loop(600, 2000), file)
    written = tmp_path / "figures.json"
    assert main(["--trace", str(file), "--budget", "2M", "--json", str(written)]) == 0
    [found] = json.loads(written.read_text())["replay"]
    assert (found["trace"], found["requests"], found["distinct"]) == ("some.trace", 2000, 720)
    assert set(found["policy"]) > {"tmemfs", "S3-FIFO", "LRU", "ARC"}
    assert "some.trace" in capsys.readouterr().out


@peers
def test_a_bad_trace_is_one_line(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("a b\n")
    assert main(["--trace", str(file)]) == 2
    said = capsys.readouterr()
    assert said.err == f"benchmarks: {file}:1: 'b' is not a decimal number\n"
    assert said.out == ""
