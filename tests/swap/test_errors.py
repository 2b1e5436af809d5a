"""Swap while the daemon's own code fails again and again: every page is right, and nobody ends."""

import os
import subprocess
import sys
from pathlib import Path

import injection
import pytest
from loop_swap import swap_on, used_swap
from memory_limit import MemoryLimit
from mounting import mounted

pytestmark = [pytest.mark.root, pytest.mark.swap]

MIB = 1 << 20
KEEPER = Path(__file__).with_name("keeps_pages.py")
ROUNDS = 40

# Who puts pages, and in which store. By the lane, most pages never pass through code that can fail.
OFF, PYTHON, LANE = "native=off", "put by Python", "put by the lane"
_PUT_BY_PYTHON = """
from tmemfs.native.lane import Lane
grant = Lane.grant
Lane.grant = lambda *args, stores=False, **named: grant(*args, stores=False, **named)
"""
# Errors, of more than so many kinds, and one in how many calls fails: a request is given up after
# four tries that failed, and in the store in Python each is many calls.
CASES = [
    (PYTHON, False, 200, 6, 8),
    (PYTHON, True, 200, 6, 60),
    (LANE, False, 20, 2, 8),
    (LANE, True, 60, 2, 60),
    (OFF, False, 200, 2, 300),
    (OFF, True, 100, 2, 300),
]


@pytest.mark.parametrize(("who", "overflow", "errors", "kinds", "one_in"), CASES)
def test_errors_under_load(
    tmp_path: Path, who: str, overflow: bool, errors: int, kinds: int, one_in: int
) -> None:
    switch, source = tmp_path / "switch", tmp_path / "source"
    source.mkdir()
    tests = Path(injection.__file__).parent
    before = (
        f"import sys\nsys.path.insert(0, {str(tests)!r})\nimport injection\n"
        f"injection.install_random({str(switch)!r}, {errors}, seed=1, one_in={one_in})\n"
        + (_PUT_BY_PYTHON if who == PYTHON else "")
    )
    options = [
        "--swap=s=128M",
        f"-onative={'off' if who == OFF else 'on'}",
        "--budget=12M" if overflow else "--budget=160M",
    ]
    if overflow:
        options.append(f"--overflow=s={tmp_path / 'overflow'}")
    with (
        mounted(source, tmp_path / "m", *options, before=before, logs=True) as mount,
        swap_on(mount.control / "swap" / "s") as device,
        MemoryLimit(24 * MIB) as limit,
        subprocess.Popen(
            limit.command([sys.executable, KEEPER, "48"]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        ) as program,
    ):
        assert program.stdin is not None
        assert program.stdout is not None
        assert program.stdout.readline() == "filled\n"
        switch.touch()
        for _ in range(ROUNDS):
            program.stdin.write("\n")
            program.stdin.flush()
            assert program.stdout.readline() == "0 wrong\n"
            failed = switch.read_text().splitlines()
            if len(failed) == errors:
                break
        assert len(failed) == errors
        assert len(set(failed)) > kinds, "of many kinds"
        switch.unlink()
        program.stdin.write("\n")
        program.stdin.flush()
        assert program.stdout.readline() == "0 wrong\n"
        assert used_swap(device) is not None
        failsafe = mount.status()["failsafe"]
        assert 0 < failsafe["count"] <= errors
        assert failsafe["last"]
        assert mount.log().count("ERROR: ") == failsafe["count"]
        assert mount.log().count("Traceback (most recent call last)") >= failsafe["count"]
        program.kill()
