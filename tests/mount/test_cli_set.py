"""`tmemfs set` on a real mount: the budget while it is in use."""

import importlib
import json
import os
from pathlib import Path

import pytest
from as_root import Outcome, as_nobody, public_directory
from command import Place

from tmemfs.cli.main import main
from tmemfs.linux import system

# What main() imports when it is used, a process that drops its privileges may not find any more.
importlib.import_module("tmemfs.cli.commands.set")

pytestmark = [
    pytest.mark.root,
    # What runs without privileges is a fork of this process, and uses no thread of it.
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


def budget(place: Place) -> int:
    status = json.loads((place.mountpoint / ".tmemfs" / "status.json").read_text())
    return int(status["memory"]["mem_limit"])


def test_the_budget_changes_at_once(place: Place) -> None:
    place.mount()
    assert "budget=16M\n" in place.run("set", place.mountpoint).out
    assert place.run("set", place.mountpoint, "budget=48M") == Outcome(0, "", "")
    assert budget(place) == 48 << 20
    assert "budget=48M\n" in place.run("set", place.mountpoint).out
    place.run("set", place.mountpoint, "budget=10%")
    assert budget(place) == system.physical_memory() // 10


def test_what_cannot_be_changes_nothing(place: Place) -> None:
    place.mount()
    refused = place.run("set", place.mountpoint, "budget=1K", code=2)
    assert refused.err.startswith("tmemfs: budget: 1K is not from 2M to ")
    place.run("set", place.mountpoint, "budget=48M", "bugdet=1G", code=2)
    assert budget(place) == 16 << 20


def test_a_budget_that_does_not_hold_what_is_swapped_out(place: Place) -> None:
    place.mount("--swap", "swap0=8M", "--reserve", "2M")
    (place.mountpoint / ".tmemfs" / "swap" / "swap0").write_bytes(os.urandom(8 << 20))
    refused = place.run("set", place.mountpoint, "budget=4M", code=32)
    assert refused.err == (
        f"tmemfs: budget: 4M does not hold what is swapped out to {place.mountpoint}; "
        "it stays as it was\n"
    )
    assert budget(place) == 16 << 20


def test_a_budget_too_small_for_the_tables_of_an_overflow(place: Place) -> None:
    """What `mount` refuses, nobody gets later: writes would fail with the overflow half empty."""
    overflow = place.source.parent / "overflow"
    place.mount("--swap", "swap0=1G", "--overflow", f"swap0={overflow}", "--reserve", "2M")
    refused = place.run("set", place.mountpoint, "budget=2M", code=2)
    assert refused.err.startswith("tmemfs: budget: 2M is not from 5.5M to ")
    assert budget(place) == 16 << 20
    place.run("set", place.mountpoint, "budget=6M")
    assert budget(place) == 6 << 20


def test_a_mount_that_is_read_only(place: Place) -> None:
    place.mount("-o", "ro")
    line = f"tmemfs: {place.mountpoint}: is mounted read-only, and so is what controls it\n"
    for command in (["set", place.mountpoint, "budget=48M"], ["drop", place.mountpoint / "file"]):
        assert place.run(*command, code=32) == Outcome(32, "", line)
    assert "budget=16M\n" in place.run("set", place.mountpoint).out
    assert place.run("warm", place.mountpoint).out == "1 file read, 15B\n"


def test_others_may_look_and_not_change(tmp_path: Path) -> None:
    with public_directory() as public:
        place = Place(public / "source", public / "mountpoint")
        place.source.mkdir()
        place.mountpoint.mkdir()
        place.mount()
        try:
            where = str(place.mountpoint)
            assert "budget=16M\n" in as_nobody(lambda: main(["set", where])).out
            refused = as_nobody(lambda: main(["set", where, "budget=48M"]))
            line = f"tmemfs: budget: only the user who mounted {where} may change it\n"
            assert refused == Outcome(1, "", line)
            assert budget(place) == 16 << 20
        finally:
            place.run("umount", place.mountpoint)
