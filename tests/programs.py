"""Other people's programs, and what they may work on."""

import os
import random
import subprocess
from pathlib import Path

# A make that runs the tests would have a make in them be a part of itself.
ENVIRONMENT = {
    name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))
} | {"GIT_CONFIG_GLOBAL": "/dev/null", "LC_ALL": "C"}


def do(*words: object, cwd: Path | None = None) -> str:
    """Run a program, which must succeed; return what it prints."""
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=ENVIRONMENT,
    )
    assert done.returncode == 0, f"{words}\n{done.stdout}"
    return done.stdout


def grow(place: Path, files: int) -> Path:
    """A tree of small files, as a source tree is: words that repeat, some links, some programs."""
    source = random.Random(files)
    words = [source.randbytes(4).hex() for _ in range(500)]
    for number in range(files):
        path = place / f"part{number % 20}" / f"sub{number % 7}" / f"file{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(" ".join(source.choices(words, k=source.randrange(300))))
        if number % 50 == 0:
            path.chmod(0o755)
            path.with_suffix(".link").symlink_to(path.name)
    return place


MAKEFILE = """
CFLAGS = -O0 -MMD
objects = $(patsubst %.c,%.o,$(wildcard *.c))
program: $(objects)
\t$(CC) -o $@ $^
-include $(objects:.o=.d)
"""


def project(place: Path, modules: int) -> Path:
    """A program of some dozens of modules, each with a header that others include."""
    place.mkdir()
    (place / "Makefile").write_text(MAKEFILE)
    for number in range(modules):
        (place / f"m{number}.h").write_text(f"int f{number}(int);\n#define ADDS{number} {number}\n")
        others = {(number * 7 + 1) % modules, (number * 5 + 3) % modules, number}
        includes = "".join(f'#include "m{other}.h"\n' for other in sorted(others))
        added = " + ".join(f"ADDS{other}" for other in sorted(others))
        code = f"{includes}int f{number}(int n) {{ return n + {added}; }}\n"
        (place / f"m{number}.c").write_text(code)
    headers = "".join(f'#include "m{number}.h"\n' for number in range(modules))
    calls = " + ".join(f"f{number}({number})" for number in range(modules))
    main = f'#include <stdio.h>\n{headers}int main(void) {{ printf("%d\\n", {calls}); }}\n'
    (place / "main.c").write_text(main)
    return place
