"""The benchmark of slow directories: they are slow, and a wrong byte is noticed."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from loop_swap import loop_devices
from mounting import drop_kernel_caches
from slow_sftp import Counts, Reader

from benchmarks import servers
from benchmarks.cache.far import FAR, ROUND_TRIP
from benchmarks.cache.figures import PASSES, lacking
from benchmarks.cache.slow import Slow
from benchmarks.cache.throttled import THROTTLED
from benchmarks.cache.work import GIT, GREP, RANDOM, SEQUENTIAL, TAR, make_source, works

ROOT = Path(__file__).parent.parent.parent
WORKS = [SEQUENTIAL, RANDOM, TAR, GREP, GIT]
MIB = 1 << 20


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A source of 2 MiB, 4 files beside it."""
    if reason := servers.lacking("git", "tar", "grep"):
        pytest.skip(reason)
    place = tmp_path / "source"
    place.mkdir()
    make_source(place, bytes(range(256)) * (2 * MIB // 256), files=4)
    return place


@pytest.fixture
def far(source: Path, tmp_path: Path) -> Iterator[Slow]:
    """The source, far away."""
    if reason := FAR.lacking():
        pytest.skip(reason)
    with FAR.directory(source, tmp_path) as directory:
        yield directory


def test_requests_are_counted_however_the_stream_is_cut(tmp_path: Path) -> None:
    read, close = b"\0\0\0\x09\x05" + bytes(8), b"\0\0\0\x05\x04" + bytes(4)
    stream = read + close + read
    for cut in range(1, len(stream)):
        counts = Counts(tmp_path / str(cut))
        reader = Reader(counts)
        for at in range(0, len(stream), cut):
            reader.see(stream[at : at + cut])
        assert counts.now() == {"read": 2, "close": 1}


@pytest.mark.root
def test_the_directory_is_slow_and_whole(source: Path, far: Slow) -> None:
    before = far.requests()
    start = time.monotonic()
    content = (far.path / "data").read_bytes()
    seconds = time.monotonic() - start
    assert content == (source / "data").read_bytes()
    # To look for it, to open it and to read are three questions, asked one after the other.
    assert seconds > 3 * ROUND_TRIP
    assert far.requests() >= before + 3


@pytest.mark.parametrize("name", WORKS)
def test_a_work_notices_what_is_wrong(source: Path, name: str) -> None:
    [work] = [work for work in works(source, reads=2 * MIB // 4096) if work.name == name]
    assert work.run(source) > 0
    with open(source / "data", "r+b") as data:
        data.seek(MIB + 5)
        data.write(b"!")
    for file in (source / "tree").rglob("*.py"):
        file.write_bytes(b"import wrong\n" + file.read_bytes())
    with pytest.raises(OSError, match=r"wrong bytes|something else"):
        work.run(source)


@pytest.mark.root
def test_the_throttled_disk_is_read_and_put_away(tmp_path: Path) -> None:
    if reason := THROTTLED.lacking():
        pytest.skip(reason)
    own_groups = Path("/proc/self/cgroup")
    groups = own_groups.read_text()
    with THROTTLED.store(tmp_path) as disk:
        assert own_groups.read_text() != groups
        content = os.urandom(MIB)
        (disk / "data").write_bytes(content)
        drop_kernel_caches()
        with THROTTLED.directory(disk, tmp_path) as slow:
            before = slow.requests()
            assert (slow.path / "data").read_bytes() == content
            assert slow.requests() > before
    assert own_groups.read_text() == groups
    assert loop_devices(tmp_path) == []
    assert str(tmp_path) not in Path("/proc/mounts").read_text()


@pytest.mark.root
def test_the_whole_of_it(tmp_path: Path) -> None:
    if reason := lacking(FAR):
        pytest.skip(reason)
    written = tmp_path / "figures.json"
    options = ["--cache", "--mib", "2", "--rounds", "1", "--json", str(written)]
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
    layers = {row["layer"] for row in found["cache"]}
    assert layers >= {"bare", "tmemfs"}
    # What the machine lacks is left out, and said.
    for peer in ("bindfs", "rclone"):
        assert (peer in layers) != (f"{peer} is left out: " in done.stdout)
    assert {(row["work"], row["pass"], row["layer"]) for row in found["cache"]} == {
        (work, when, layer) for work in WORKS for when in PASSES for layer in layers
    }
    assert len(found["figures"]) == len(WORKS) * len(PASSES) * (len(layers) - 1)
    # A cold pass asks the slow directory, whatever it goes through.
    assert all(row["requests"] > 0 for row in found["cache"] if row["pass"] == "cold")
    assert "/tmemfs-benchmark-" not in Path("/proc/mounts").read_text()
