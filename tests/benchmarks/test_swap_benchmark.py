"""The benchmark of swap: it has to notice a wrong page, to run, and to leave nothing behind."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from loop_swap import loop_devices

ROOT = Path(__file__).parent.parent.parent
PROGRAM = ROOT / "benchmarks" / "swap" / "program.c"
STEPS = ["fill", "scan", "random read", "random write"]

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def program(tmp_path: Path) -> Run:
    """Runs the program on 256 pages, of a corpus of 64; arguments are its optional ones."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    binary = tmp_path / "program"
    subprocess.run(["cc", "-O2", "-Wall", "-Werror", "-o", binary, PROGRAM], check=True)
    corpus = tmp_path / "corpus"
    corpus.write_bytes(os.urandom(64 * 4096))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        with open(corpus, "rb") as file:
            command = [str(binary), str(file.fileno()), "256", "512", "1", *arguments]
            return subprocess.run(
                command,
                pass_fds=[file.fileno()],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )

    return run


def test_the_program_says_what_each_step_took(program: Run) -> None:
    done = program()
    assert done.returncode == 0
    assert "is wrong" not in done.stderr
    steps = [json.loads(line) for line in done.stdout.splitlines()]
    assert [step["step"] for step in steps] == [*STEPS, "last check"]
    assert [step["pages"] for step in steps] == [256, 256, 512, 512, 256]
    assert all(step["ns"] > 0 for step in steps)
    # All pages are new when they are filled, and a new page is a fault.
    assert steps[0]["faults"] == 256
    assert 0 < steps[0]["p50"] <= steps[0]["p90"] <= steps[0]["p99"] <= steps[0]["max"]


def test_the_program_notices_one_wrong_bit(program: Run) -> None:
    done = program("77")
    assert done.returncode == 1
    found = re.findall(r"page (\d+), version (\d+), is wrong", done.stderr)
    assert found
    assert set(found) == {("77", "1")}


@pytest.mark.root
@pytest.mark.swap
def test_the_whole_of_it(tmp_path: Path) -> None:
    written = tmp_path / "figures.json"
    options = ["--swap", "--quick", "--peers", "tmemfs", "zram lz4", "--json", str(written)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *options],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(written.read_text())
    devices = {row["device"] for row in found["faults"]}
    assert "tmemfs" in devices
    # What the machine lacks is left out, and said.
    assert ("zram lz4" in devices) != ("zram lz4 is left out: " in done.stdout)
    assert [row["step"] for row in found["faults"] if row["device"] == "tmemfs"] == STEPS
    # It was swapped out and in, or this measured memory.
    assert all(row["faults_a_page"] > 0.5 for row in found["faults"])
    assert len(found["figures"]) == len(STEPS) * (len(devices) - 1)
    held = {row["device"]: row["written"] / row["memory"] for row in found["capacity"]}
    assert held["tmemfs"] > 1.2
    assert loop_devices(Path("/var/tmp")) == []
    assert "/var/tmp" not in Path("/proc/mounts").read_text()
