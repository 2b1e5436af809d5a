"""A real workload, recorded: what a mount is asked for by git grep, a compile, and SQLite.

The mount notes it itself (``-o trace=FILE``), with ``cache=none``: what the kernel would have
answered from its own page cache is asked for as well.
"""

import os
import random
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from benchmarks.corpus import SOURCES
from benchmarks.replay.trace import Trace, read_trace
from benchmarks.servers import tmemfs
from tmemfs.config import DEFAULT_PAGE_SIZE

ROUNDS = 2
"""How often each of them has its turn."""
SEED = 3

_TOOLS = ("git", "gcc", "make")
_PATTERNS = ("import", "def __init__", "raise [A-Z]", "TODO", "lambda", "subprocess")
_BUDGET = 16 << 20  # what is recorded does not depend on it
_HEADERS = 24
_VALUE = 400


def lacking() -> str | None:
    """Why nothing can be recorded here; None where it can."""
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} missing"
    return None if os.access("/dev/fuse", os.R_OK | os.W_OK) else "needs /dev/fuse"


def record(place: Path, mib: int, options: tuple[str, ...] = ("trace={}", "cache=none")) -> Trace:
    """Record the workload on about *mib* MiB of files, made below the empty directory *place*.

    What the mount is to note, and how, is in its *options*. Raises OSError where it cannot be
    mounted so, and CalledProcessError when a program fails on it.
    """
    source, mountpoint, file = place / "source", place / "mount", place / "recorded.trace"
    make_tree(source, mib)
    given = ",".join(options).format(file)
    with tmemfs(
        source,
        mountpoint,
        budget=_BUDGET,
        page_size=DEFAULT_PAGE_SIZE,
        options=["-o", given],
    ) as tree:
        for number in range(ROUNDS):
            for step in STEPS:
                step(tree, number)
    found = read_trace(file)
    about = f"git grep, make -j2, SQLite, each {ROUNDS} times on {mib} MiB of files, seed {SEED}"
    return Trace("recorded", found.keys, found.page_size, about)


def make_tree(top: Path, mib: int) -> None:
    """Make what to work on: a repository and a database of *mib* MiB together; a program."""
    top.mkdir()
    _make_repository(top / "repository", mib << 19)
    _make_program(top / "program", files=2 * mib)
    _make_database(top / "data.db", rows=(mib << 19) // _VALUE)


def grep(tree: Path, _: int) -> None:
    """Look for several things in every file of the repository."""
    for pattern in _PATTERNS:
        _run("git", "grep", "-c", pattern, cwd=tree / "repository")


def build(tree: Path, number: int) -> None:
    """Compile the program; the second time, half of it again."""
    program = tree / "program"
    for file in sorted(program.glob("*.c"))[:: 2 if number else 1]:
        file.touch()
    _run("make", "-s", "-j2", cwd=program)


def query(tree: Path, number: int) -> None:
    """Look rows up by their index, some far more often than others, and add all up once."""
    source = random.Random(SEED + number)
    with closing(sqlite3.connect(tree / "data.db")) as database:
        database.execute("PRAGMA cache_size = 64")
        database.execute("BEGIN")  # one lock for all of them
        [(rows,)] = database.execute("SELECT max(id) FROM entry")
        for turn in range(rows):
            name = _name(int(rows ** source.random()))
            database.execute("SELECT value FROM entry WHERE name = ?", (name,)).fetchone()
            if turn == rows // 2:
                database.execute("SELECT sum(length(value)) FROM entry").fetchone()


STEPS: tuple[Callable[[Path, int], None], ...] = (grep, build, query)


def _make_repository(top: Path, size: int) -> None:
    top.mkdir()
    for number, file in enumerate(_sources(size)):
        shutil.copyfile(file, top / f"{number}_{file.name}")
    _run("git", "init", "-q", cwd=top)
    _run("git", "add", ".", cwd=top)
    who = ("-c", "user.name=benchmark", "-c", "user.email=benchmark@localhost")
    _run("git", *who, "commit", "-q", "-m", "sources", cwd=top)


def _sources(size: int) -> Iterator[Path]:
    """Some of Python's own sources, of about *size* bytes together."""
    for file in sorted(SOURCES.rglob("*.py")):
        if size <= 0 or "site-packages" in file.parts or file.is_symlink():
            continue
        size -= file.stat().st_size
        yield file


def _make_program(top: Path, files: int) -> None:
    """A program of *files* files in C, each of which includes half of the headers."""
    top.mkdir()
    source = random.Random(SEED)
    for number in range(_HEADERS):
        lines = [
            f"static inline int f{number}_{i}(int x) {{ return x * {source.randrange(9999)}; }}"
            for i in range(300)
        ]
        Path(top, f"h{number}.h").write_text("#pragma once\n" + "\n".join(lines) + "\n")
    for number in range(files):
        chosen = source.sample(range(_HEADERS), _HEADERS // 2)
        includes = "".join(f'#include "h{header}.h"\n' for header in chosen)
        calls = " + ".join(f"f{header}_{number % 300}(x)" for header in chosen)
        Path(top, f"c{number}.c").write_text(
            f"{includes}int c{number}(int x) {{ return {calls}; }}\n"
        )
    Path(top, "main.c").write_text("int main(void) { return 0; }\n")
    objects = " ".join(f"c{number}.o" for number in range(files))
    Path(top, "Makefile").write_text(f"program: main.o {objects}\n\t$(CC) -o $@ $^\n")


def _make_database(file: Path, rows: int) -> None:
    source = random.Random(SEED)
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("CREATE TABLE entry (id INTEGER PRIMARY KEY, name TEXT, value BLOB)")
        database.execute("CREATE INDEX by_name ON entry (name)")
        values = ((_name(row), source.randbytes(_VALUE // 2).hex()) for row in range(1, rows + 1))
        database.executemany("INSERT INTO entry (name, value) VALUES (?, ?)", values)


def _name(row: int) -> str:
    # Scattered over the index, or neighbours would be as popular as each other.
    return f"{row * 2654435761 % (1 << 32):08x}"


def _run(*command: str, cwd: Path) -> None:
    # Whatever the user has set up for git is no part of this.
    quiet = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **quiet},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        check=True,
    )
