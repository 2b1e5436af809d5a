"""The benchmark of stalls: the reader counts what it waits, all of it runs, nothing is left."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.compiler import compile_c
from benchmarks.stalls import figures
from benchmarks.stalls.loads import lacking

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.root
def test_the_whole_of_it(tmp_path: Path) -> None:
    if reason := lacking():
        pytest.skip(reason)
    try:
        compile_c(
            Path(figures.__file__).with_name("reader.c"), tmp_path / "reader", "-Wall", "-Werror"
        )
    except OSError as error:
        pytest.skip(str(error))
    written = tmp_path / "figures.json"
    options = ["--stalls", "--quick", "--mib", "1", "--json", str(written)]
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
    for row in found["stalls"]:
        assert row["reads"] > 0
        assert 0 < row["p50"] <= row["p99"] <= row["p999"] <= row["max"] < row["seconds"] + 1
    loads = [row["load"] for row in found["stalls"]]
    assert loads[0] == "idle"
    assert [row["subject"] for row in found["figures"]] == [f"p99, {load}" for load in loads[1:]]
    assert "/tmemfs-benchmark-" not in Path("/proc/mounts").read_text()
