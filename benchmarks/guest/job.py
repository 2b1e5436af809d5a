"""The disk that a guest gets: this tmemfs, what it needs, the load, and the row to run."""

import re
import shutil
from importlib import metadata
from pathlib import Path

import tmemfs
from benchmarks.compiler import compile_c
from benchmarks.guest.rows import Row

HERE = Path(__file__).parent
SECONDS = 90  # a load that has swapped for so long has gone on
STALL = 40  # and one that has touched nothing for so long is hung


def make_job(place: Path, row: Row, package: Path = Path(tmemfs.__file__).parent) -> None:
    """Put it all into the empty directory *place*. Raises OSError where there is no C compiler."""
    packages = place / "packages"
    shutil.copytree(package, packages / "tmemfs", ignore=shutil.ignore_patterns("__pycache__"))
    for name in sorted(_needed("tmemfs") - {"tmemfs"}):
        _copy(metadata.distribution(name), packages)
    compile_c(HERE / "load.c", place / "load", "-static")
    shutil.copy(HERE / "job.sh", place)
    variables = (*row.variables(), f"SECONDS_LIMIT={SECONDS}", f"STALL={STALL}")
    (place / "row.env").write_text("".join(f"{line}\n" for line in variables))


def _needed(name: str) -> set[str]:
    """The distribution *name* and all that it needs here."""
    found, left = set(), [name]
    while left:
        one = left.pop()
        if one in found:
            continue
        try:
            required = metadata.requires(one) or []
        except metadata.PackageNotFoundError:
            continue  # for another system, or another Python
        found.add(one)
        left += [
            match[0]
            for line in required
            if "extra ==" not in line and (match := re.match(r"[\w.-]+", line))
        ]
    return found


def _copy(distribution: metadata.Distribution, target: Path) -> None:
    for file in distribution.files or ():
        if ".." not in file.parts and "__pycache__" not in file.parts:
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(str(distribution.locate_file(file)), target / file)
