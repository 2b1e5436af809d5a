"""Random operations with mappings, byte by byte, on mounts of every kind.

``TMEMFS_TEST_FSX_SECONDS=3600 pytest tests/mount/test_fsx.py -s`` is the long form: so long for
all the kinds together. What fails is done again with ``python tests/fsx.py --seed``.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from as_root import public_directory
from command import run
from fsx import Fsx, Wrong
from mounting import mounted
from sources import SOURCES

pytestmark = pytest.mark.root

SECONDS = float(os.environ.get("TMEMFS_TEST_FSX_SECONDS", "0"))
SEEDS = (1, 2)
OPERATIONS = 1000
LONG = 20_000  # operations of one seed in the long form


class Kind(NamedTuple):
    """A kind of mount, and whether the kernel lets its files be mapped shared."""

    name: str
    options: tuple[str, ...]
    mappings: bool = True


KINDS = [
    Kind("default", ("--budget=64M",)),
    Kind("tiny budget", ("--budget=2M", "--page-size=4K")),
    Kind("large pages", ("--budget=16M", "--page-size=64K")),
    # Direct I/O: such files cannot be mapped.
    Kind("cache=none", ("--budget=16M", "-o", "cache=none"), mappings=False),
    Kind("cache=always", ("--budget=16M", "-o", "cache=always")),
    Kind("writeback", ("--budget=16M", "-o", "writeback")),
    Kind("writeback, tiny budget", ("--budget=2M", "-o", "writeback,cache=always")),
]
QUICK = [("bindfs", "default"), ("sshfs", "writeback")]
PLACES = [
    pytest.param(source, kind, id=f"{source}, {kind.name}", marks=marks)
    for source in SOURCES
    for kind in KINDS
    for marks in [() if source == "plain" or (source, kind.name) in QUICK else pytest.mark.thorough]
]


@pytest.mark.parametrize(("place", "kind"), PLACES)
def test_every_byte_is_as_expected(place: str, kind: Kind) -> None:
    with public_directory() as top, SOURCES[place](top) as source:
        (source.path / "files").mkdir()
        figures = _run(kind, source.path / "files", top)
    assert figures["failsafe"]["count"] == 0
    if (place, kind.name) == ("plain", "tiny budget"):  # elsewhere the kernel keeps most of it
        assert figures["reclaim"]["evicted_pgs"] > 0


def _run(kind: Kind, source: Path, top: Path) -> dict[str, Any]:
    until = time.monotonic() + SECONDS / len(KINDS) if SECONDS else float("inf")
    done = seed = 0
    with mounted(source, top / "m", *kind.options) as mount:
        while seed < len(SEEDS) or (SECONDS and time.monotonic() < until):
            seed += 1
            fsx = Fsx(mount.path, seed, behind=source, mappings=kind.mappings)
            fsx.run(LONG if SECONDS else OPERATIONS, until)
            fsx.close()
            done += fsx.done
        figures = mount.status()
        assert os.listdir(source) == []
    print(f"{kind.name}: {done} operations, seeds 1 to {seed}")
    return figures


def test_a_wrong_byte_is_found(tmp_path: Path) -> None:
    """On a plain directory, where somebody else writes into a file meanwhile."""
    fsx = Fsx(tmp_path, 7)
    fsx.run(200)
    with open(tmp_path / "fsx0", "r+b") as file:
        file.write(bytes(byte ^ 1 for byte in file.read(1) or b"x"))
        file.seek(0, os.SEEK_END)
        file.write(b"one more")
    with pytest.raises(Wrong, match="fsx0"):
        fsx.run(2000)


def test_the_program(tmp_path: Path) -> None:
    program = (sys.executable, Path(__file__).parents[1] / "fsx.py")
    done = run(*program, "--seed", "3", "--ops", "100", tmp_path)
    assert done.out == "seed 3\n100 operations, nothing wrong\n"
    assert os.listdir(tmp_path) == []
    assert "not a directory" in run(*program, tmp_path / "none", code=2).err
