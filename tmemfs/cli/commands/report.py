"""`tmemfs report`: one file with what somebody needs who is to help, without names of files."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator

import tmemfs
from tmemfs import config
from tmemfs.cli.figures import find_mount, read_figures, visible_mounts
from tmemfs.cli.parser import Parser
from tmemfs.cli.system import machine
from tmemfs.errors import TmemfsError
from tmemfs.linux.system import Mount

_LIBRARIES = ("pyfuse3", "trio", "lz4", "attrs", "rich")
_LINES = 200
_JOURNAL_TIMEOUT_S = 10.0
# Quoted, or a path up to what may end one in a line of a log.
_NAMES = re.compile(r"""b?'[^'\n]*'|b?"[^"\n]*"|(?<![\w.])/[^:"',;)\n]*""")

_EPILOG = """\
What is in it: versions, kernel, limits; what 'tmemfs check' finds; of each mount its options and
status; the last lines of its log. Names of files and directories are left out, and stand in it as
<name>, unless --names is given. Read it before you pass it on.

exit codes:
  0  it was written
  1  not permitted
  2  wrong usage
 32  there is no such mount
"""


def parser() -> Parser:
    """The command line of the command."""
    made = Parser(
        "tmemfs report",
        "Collect version, kernel, options, status, check and log in one file, for who is to help.",
        _EPILOG,
    )
    made.add_argument(
        "mountpoint", metavar="MOUNTPOINT", nargs="?", help="of one mount; default: all of them"
    )
    made.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="where to write it; - for the terminal; default tmemfs-report-DATE.txt here",
    )
    made.add_argument("--names", action="store_true", help="leave names of files in it")
    return made


def run(arguments: argparse.Namespace) -> int:
    """Write the report, and say where."""
    mounts = [find_mount(arguments.mountpoint)] if arguments.mountpoint else visible_mounts()
    text = "".join(f"{line}\n" for line in _report(mounts, names=arguments.names))
    if arguments.output == "-":
        sys.stdout.write(text)
        return 0
    path = arguments.output or time.strftime("tmemfs-report-%Y%m%d-%H%M%S.txt")
    # New, and nobody else's to read: --names may have put names of files in it.
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
    print(f"{path}: written; read it before you pass it on")
    return 0


def _report(mounts: Iterable[Mount], *, names: bool) -> Iterator[str]:
    yield "# versions"
    yield f"tmemfs {tmemfs.__version__}, Python {platform.python_version()}"
    for library in _LIBRARIES:
        yield f"{library} {_version(library)}"
    yield f"{platform.system()} {platform.release()} {platform.machine()}"
    yield "\n# check"
    for finding in machine.findings(budget=config.default_budget(), overflow=False):
        yield _clean(f"{finding.level.value:7}  {finding.topic}  {finding.text}", names=names)
    for number, mount in enumerate(mounts, 1):
        yield f"\n# mount {number}"
        yield from _of_mount(mount, names=names)


def _of_mount(mount: Mount, *, names: bool) -> Iterator[str]:
    yield _clean(f"{mount.source} on {mount.mountpoint}", names=names)
    yield _clean(f"options: {','.join(sorted(mount.options))}", names=names)
    try:
        figures = read_figures(mount)
    except TmemfsError as error:
        yield _clean(f"status: {error}", names=names)
        return
    where, process = str(figures.get("log", "syslog")), figures.get("pid")
    for line in json.dumps(figures, indent=1).splitlines():
        key, colon, value = line.partition(": ")
        yield f"{key}{colon}{_clean(value, names=names)}"
    yield f"\n## log, the last {_LINES} lines"
    for line in _log(where, process):
        yield _clean(line, names=names)


def _log(where: str, process: object) -> list[str]:
    """The last lines of a daemon's log, or why there are none."""
    if where == "stderr":
        return ["on the terminal, or in the journal of the unit that started it"]
    try:
        if os.path.isabs(where):
            with open(where, encoding="utf-8", errors="replace") as file:
                return file.read().splitlines()[-_LINES:]
        found = subprocess.run(
            ["journalctl", "--no-pager", "-q", "-n", str(_LINES), f"_PID={process}"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_JOURNAL_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return [f"cannot be read: {error}"]
    return (found.stdout or found.stderr or "nothing in the journal").splitlines()


def _clean(text: str, *, names: bool) -> str:
    """*text* without anything that may be the name of a file, unless *names* are wanted."""
    return text if names else _NAMES.sub(_hidden, text)


def _hidden(match: re.Match[str]) -> str:
    found = match[0]
    # Values of the status that are plain words say nothing of files.
    return found if re.fullmatch(r'"[\w .-]*"', found) else "<name>"


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "is not there"
