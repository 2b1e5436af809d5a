"""The guests that run out of memory: what is made of what they print, and one that boots."""

import os
from dataclasses import replace

import pytest

from benchmarks.guest.image import image, lacking
from benchmarks.guest.machine import Outcome, run
from benchmarks.guest.rows import ROWS, Row
from benchmarks.guest.table import head, line, went_on

WENT_ON = """\
Swap:            511           0         511
at 0 pages 76 out 0 in 0 minflt 1000 majflt 60 rss 105272 hwm 105272
[   26.118022] load invoked oom-killer
at 10 pages 37292 out 17170 in 11 minflt 1002 majflt 61 rss 104808 hwm 105272
end right
[   59.206091] sysrq: Power Off
"""
HUNG = """\
at 0 pages 76 out 0 in 0 minflt 1000 majflt 60 rss 105272 hwm 105272
at 61 pages 43930 minflt 1000 majflt 60
end hung
[   89.681966] sysrq: Show State
"""
ROW = Row("a", memory=280, load=180, budget=16, overflow="file", sysctls=("page-cluster=0",))


def test_the_console_of_one_that_goes_on() -> None:
    outcome = Outcome.of_console(WENT_ON)
    assert outcome.went_on
    assert outcome.after["seconds"] == 10
    assert outcome.gained("out") == 17170
    assert (outcome.gained("minflt"), outcome.gained("majflt")) == (2, 1)


def test_the_console_of_one_that_hangs() -> None:
    outcome = Outcome.of_console(HUNG)
    assert not outcome.went_on
    assert outcome.end == "hung"
    assert outcome.gained("out") == 0


def test_one_whose_load_is_killed_goes_on() -> None:
    assert Outcome.of_console(WENT_ON.replace("end right", "end killed")).went_on


def test_the_console_of_one_that_does_not_come_to_the_load() -> None:
    assert Outcome.of_console("Kernel panic\n").end == "silent"
    assert Outcome.of_console("end failed: swapon\n").end == "failed: swapon"


def test_a_line_of_the_table() -> None:
    outcomes = [Outcome.of_console(said) for said in (WENT_ON, HUNG, WENT_ON)]
    assert went_on(outcomes) == "2 of 3: 2 right, 1 hung"
    cells = line(ROW, outcomes).strip("| ").split(" | ")
    assert cells == [
        "a",
        "280, 180",
        "512M, budget 16M, overflow file",
        "page-cluster=0",
        "2 of 3: 2 right, 1 hung",
        "17,170, 11",
        "3",
        "10",
    ]
    assert all(text.count("|") == len(cells) + 1 for text in head())


def test_rows_have_names_of_their_own() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)


@pytest.mark.root
@pytest.mark.skipif(lacking() is not None, reason=lacking() or "nothing is lacking")
@pytest.mark.skipif("TMEMFS_GUEST" not in os.environ, reason="TMEMFS_GUEST names no guest")
def test_a_guest_that_swaps() -> None:
    # In a cgroup, where nothing may hang.
    row = replace(ROW, memory=400, load=60, cgroup=40, sysctls=())
    outcome = run(row, image())
    assert outcome.end == "right", outcome.console
    assert outcome.gained("out") > 1000
