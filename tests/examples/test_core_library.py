"""examples/core_library.py runs, and shows what it says: notes push sources out."""

import re

import core_library
import pytest

LINE = r"(\w+ \w+): (\d+) of (\d+) source pages are there; (\d+) KiB in (\d+) KiB of memory"


def test_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    core_library.main()
    found = [re.fullmatch(LINE, line) for line in capsys.readouterr().out.splitlines()]
    assert [line and line[1] for line in found] == ["sources read", "notes taken"]
    (hits, total, stored, used), (later, *_) = (
        map(int, line.groups()[1:]) for line in found if line
    )
    assert total > 500
    assert hits == total
    assert stored > 1.5 * used, "they were compressed"
    assert 0 < later < hits
