"""`tmemfs set`: what is refused before anything is changed, and what is put back."""

from pathlib import Path
from typing import Any

import pytest

from tmemfs.cli.main import main

KNOBS = {
    "budget": {"value": 1 << 30, "least": 16 << 20, "most": 8 << 30},
    "readahead": {"value": 4095, "least": 0, "most": 1 << 20},
}


@pytest.fixture
def place(add_mount: Any, figures: dict[str, Any]) -> Path:
    """A mount with two knobs, which are plain files."""
    place: Path = add_mount(figures=figures | {"knobs": KNOBS})
    for name in KNOBS:
        (place / ".tmemfs" / name).write_text("as it was")
    return place


def knobs(place: Path) -> list[str]:
    return [(place / ".tmemfs" / name).read_text() for name in KNOBS]


def test_the_values_as_they_can_be_given_back(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["set", str(place)]) == 0
    assert capsys.readouterr().out == "budget=1G\nreadahead=4095\n"


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (["budget=2G", "readahed=1M"], "unknown key 'readahed'; did you mean 'readahead'?"),
        (["budget=2G", "readahead=2M"], "readahead: 2M is not from 0B to 1M"),
        (["budget=2G", "budget=3G"], "budget: is given twice"),
        (["readahead=0", "budget=1M"], "budget: 1M is not from 16M to 8G"),
        (["readahead=0", "budget"], "budget: write budget=SIZE"),
        (
            ["readahead=0", "budget="],
            "budget: '' is not a size; write it like 512M, 1.5G, 4096 or 25%",
        ),
        (["readahead=0", "=1"], "unknown key ''"),
    ],
)
def test_one_that_cannot_be_leaves_all_as_they_are(
    settings: list[str], line: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["set", str(place), *settings]) == 2
    assert capsys.readouterr().err == f"tmemfs: {line}\n"
    assert knobs(place) == ["as it was"] * 2


def test_a_budget_that_may_not_hold_what_is_promised_is_said(
    add_mount: Any, figures: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    figures["swaps"][0]["overflow"] = None
    place = add_mount(figures=figures | {"knobs": KNOBS})
    (place / ".tmemfs" / "budget").touch()
    assert main(["set", str(place), "budget=1G"]) == 0
    assert capsys.readouterr().err.startswith(
        f"tmemfs: {place}: 8G can be swapped out, and the budget of 1G holds 938.7M of pages that "
    )


def test_all_are_set(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["set", str(place), "readahead=64K", "budget=2G"]) == 0
    assert capsys.readouterr() == ("", "")
    assert [int(text.split()[0]) for text in knobs(place)] == [2 << 30, 64 << 10]


def test_one_that_fails_puts_the_others_back(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = place / ".tmemfs" / "readahead"
    broken.unlink()
    broken.mkdir()
    assert main(["set", str(place), "budget=2G", "readahead=0"]) == 32
    assert capsys.readouterr().err == f"tmemfs: {broken}: Is a directory\n"
    assert (place / ".tmemfs" / "budget").read_text().startswith(f"{1 << 30}\n")


def test_a_daemon_without_knobs(add_mount: Any, capsys: pytest.CaptureFixture[str]) -> None:
    place = add_mount()
    assert main(["set", str(place)]) == 32
    assert capsys.readouterr().err == (
        f"tmemfs: {place}: its daemon is too old to be told by 'tmemfs set'\n"
    )
