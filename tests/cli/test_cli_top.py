"""`tmemfs top`: plain blocks of lines, and what is drawn on a terminal."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, Group

from tmemfs.cli.main import main
from tmemfs.cli.output import topcolumns, topview
from tmemfs.cli.output.rates import with_rates
from tmemfs.cli.output.watching import Seen

# The figures of conftest.py: a pool 'cache' and a pool 'swap0', which overflows.
AddMount = Any


def later(figures: dict[str, Any], seconds: float, **counts: int) -> dict[str, Any]:
    """The figures after some seconds in which the cache and reclaim counted `counts`."""
    found: dict[str, Any] = json.loads(json.dumps(figures))
    found["uptime_seconds"] += seconds
    for part in (found["pools"][0], found["reclaim"], found["cache"], found["swaps"][0]):
        for key in part.keys() & counts.keys():
            part[key] += counts[key]
    return found


def drawn(*seen: Seen) -> str:
    console = Console(width=150, record=True, file=None, force_terminal=False, legacy_windows=False)
    with console.capture() as capture:
        console.print(Group(*(part for mount in seen for part in topview._drawn(mount))))
    return capture.get()


def batch(capsys: pytest.CaptureFixture[str], *argv: str) -> list[list[str]]:
    """The blocks of a run that went well, each without its time."""
    assert main(["top", "--batch", "--delay=0.1", *argv]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    blocks = [block.splitlines() for block in out.removesuffix("\n\n").split("\n\n")]
    for block in blocks:
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", block.pop(0))
    return blocks


# --- plain -----------------------------------------------------------------------------------


def test_a_block_for_each_look(add_mount: AddMount, capsys: pytest.CaptureFixture[str]) -> None:
    place = str(add_mount())
    blocks = batch(capsys, "-n", "2", place)
    assert len(blocks) == 2
    for heading, cache, swap in blocks:
        assert heading.split()[:4] == ["MOUNTPOINT", "POOL", "HIT%", "HIT%-ALL"]
        assert heading.split()[-7:] == [
            "EPH", "PERS", "TABLES", "BUDGET", "EVICTED/s", "MOVED/s", "ATE/s",
        ]  # fmt: skip
        assert cache.split()[:3] == [place, "cache", "87.5%"]
        assert cache.split()[-4:] == ["256M", "0B", "2M", "1G"]
        assert swap.split()[:2] == [place, "swap0"]


def test_a_mount_that_goes_is_named_and_the_others_go_on(
    add_mount: AddMount, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = str(add_mount("good")), add_mount("bad")
    (bad / ".tmemfs" / "status.json").write_text("{")
    [block] = batch(capsys, "-n", "1")
    assert [line.split()[0] for line in block[1:]] == [good, good, f"{bad}:"]
    assert ".tmemfs/status.json is not readable" in block[-1]


def test_figures_that_make_no_sense_are_no_end(
    add_mount: AddMount, capsys: pytest.CaptureFixture[str]
) -> None:
    place = add_mount(figures={"pid": 1, "pools": [{"kind": 5}], "uptime_seconds": "long"})
    [block] = batch(capsys, "-n", "1")
    assert block == [f"{place}: the figures of its daemon make no sense"]


def test_no_mounts_at_all(add_mount: AddMount, capsys: pytest.CaptureFixture[str]) -> None:
    assert batch(capsys, "-n", "1") == [[]]


def test_every_column_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "--help"]) == 0
    text = capsys.readouterr().out
    assert [
        column.name
        for column in topcolumns.ALL
        if f" {column.name}  {column.explanation}\n" not in text
    ] == []


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--delay", "0"], "--delay: 0 is not a number of seconds from 0.1 on"),
        (["--delay", "nan"], "--delay: nan is not a number of seconds from 0.1 on"),
        (["--iterations", "0"], "--iterations: 0 is not a number of times"),
    ],
)
def test_what_cannot_be_meant(
    argv: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["top", *argv]) == 2
    assert capsys.readouterr().err == f"tmemfs: {line}\n"


def test_nothing_is_mounted_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "--batch", str(tmp_path)]) == 32
    assert capsys.readouterr().err == f"tmemfs: {tmp_path}: nothing is mounted there\n"


def test_a_terminal_without_rich_is_told_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["top"]) == 2
    assert capsys.readouterr().err == (
        "tmemfs: the package rich is missing: pip install 'tmemfs[top]', or use --batch\n"
    )


# --- drawn -----------------------------------------------------------------------------------


def test_what_is_drawn_of_a_mount(figures: dict[str, Any]) -> None:
    counts = {
        "gets": 100, "found_gets": 25, "good_puts": 20, "evicted_pgs": 10,
        "backing_read_bytes": 4 << 20, "overflow_writes": 7,
    }  # fmt: skip
    text = drawn(Seen("/m", with_rates(figures, later(figures, 2, **counts))))
    head, bar, reclaim, names, cache, swap, empty = text.splitlines()
    assert head == "/m  shows /srv/slow  up 1-02:03:06"
    assert bar.startswith(f"[{'|' * 10}{' ' * 30}] 258M of 1G:")
    assert bar.endswith("ephemeral 256M  persistent 0B  tables 2M")
    assert reclaim == "EVICTED/s 5.0  MOVED/s 0  ATE/s -"
    columns = dict(zip(names.split(), cache.split(), strict=False))
    assert (columns["POOL"], columns["HIT%"]) == ("cache", "25.0%")
    assert (columns["GETS/s"], columns["PUTS/s"], columns["READ/s"]) == ("50", "10", "2M")
    assert swap.split()[-3:] == ["5", "0", "3.5"]
    assert empty == ""


def test_what_nobody_has_is_not_drawn(without_swap: dict[str, Any]) -> None:
    text = drawn(Seen("/m", without_swap))
    assert "OVERFLOW" not in text
    assert "GETS/s" not in text, "the first look has no rates"


def test_a_full_bar_is_as_long_as_an_empty_one(figures: dict[str, Any]) -> None:
    sizes = [(0, 0, 0), (1 << 30, 0, 0), (400 << 20, 400 << 20, 200 << 20), (1 << 30, 1 << 29, 5)]
    for ephemeral, persistent, tables in sizes:
        figures["pools"][0]["mem_used_total"] = ephemeral
        figures["pools"][1]["mem_used_total"] = persistent
        figures["memory"]["metadata_bytes"] = tables
        bar = drawn(Seen("/m", figures)).splitlines()[1]
        assert re.match(r"\[\|* *\] $", bar[: topview._BAR + 3])


def test_names_cannot_draw(figures: dict[str, Any]) -> None:
    figures["source"] = "\x1b[2J[red]x"
    assert r"shows \x1b[2J[red]x" in drawn(Seen("/m\n", figures))
