"""The parts of the benchmarks that are in C, compiled when they are needed."""

import shutil
import subprocess
from pathlib import Path


def compile_c(source: Path, target: Path, *flags: str, package: str | None = None) -> None:
    """Make *target* of one C file, with what pkg-config says of *package*.

    Raises OSError, which says what is missing, where that cannot be done here.
    """
    compiler = shutil.which("cc")
    if compiler is None or (package and shutil.which("pkg-config") is None):
        raise OSError("no C compiler or no pkg-config")
    libraries: list[str] = []
    if package:
        asked = subprocess.run(
            ["pkg-config", "--cflags", "--libs", package],
            check=False,
            capture_output=True,
            text=True,
        )
        if asked.returncode:
            raise OSError(f"no {package} headers")
        libraries = asked.stdout.split()
    subprocess.run([compiler, "-O2", *flags, "-o", target, source, *libraries], check=True)
