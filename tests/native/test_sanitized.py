"""The C of the lane and the store under the sanitizers: see the C files beside this one.

``make sanitize`` does the same for longer, and runs the core's tests on an extension that has them.
"""

import subprocess
import sysconfig
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NATIVE = HERE.parents[1] / "tmemfs" / "native"
WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Werror"]

# Those that begin otherwise know of Python.
SOURCES = sorted(NATIVE.glob("[a-z]*.c"))


def build(program: Path, sanitizers: str, *sources: Path) -> None:
    """Compile and link *sources*; skips the test where the compiler has no such sanitizers."""
    flags = ["-O1", "-g", f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all"]
    try:
        subprocess.run(
            ["gcc", *flags, "-x", "c", "-", "-o", program], input=b"int main(void) {}", check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no compiler with -fsanitize={sanitizers}: {error}")
    command = ["gcc", *flags, "-Wall", "-Wextra", "-Werror", *sources, "-o", program]
    subprocess.run([*command, "-llz4", "-lpthread"], check=True)


def run(program: Path, *words: object) -> str:
    done = subprocess.run(
        [program, *map(str, words)], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


@pytest.mark.parametrize("sanitizers", ["thread", "address,undefined"])
@pytest.mark.parametrize("name", ["stress", "swap_stress"])
def test_the_lane_under_stress(tmp_path: Path, name: str, sanitizers: str) -> None:
    build(tmp_path / name, sanitizers, HERE / f"{name}.c", *SOURCES)
    answered = run(tmp_path / name, 4, 10_000).split()[0]
    assert int(answered) > 1000


def test_the_store_beside_an_array(tmp_path: Path) -> None:
    build(tmp_path / "fuzz", "address,undefined", HERE / "fuzz.c", *SOURCES)
    assert run(tmp_path / "fuzz", 5000, 3000) == "5000 seeds of 3000 bytes\n"


@pytest.mark.parametrize("source", sorted(NATIVE.glob("*.c")), ids=lambda path: path.name)
def test_there_is_no_warning(source: Path) -> None:
    # Python's own headers are not ours to mend.
    python = f"-isystem{sysconfig.get_paths()['include']}"
    subprocess.run(["gcc", "-fsyntax-only", *WARNINGS, python, source], check=True)
