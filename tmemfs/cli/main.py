"""The command `tmemfs`: finds out which command is meant, runs it, and tells how it went.

Every failure leaves here as one line on stderr and an exit code of mount(8). Each command is a
module with `parser()` and `run(arguments) -> exit code`, and is imported only when it is used.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence

import tmemfs
from tmemfs.cli.parser import BY_MOUNT_HELPER, Parser
from tmemfs.errors import InternalError, UsageError, as_error, did_you_mean

COMMANDS = {
    "mount": "show a directory through a compressed cache, and offer swap files",
    "umount": "take a mount away, naming who holds it, and wait for its end",
    "swapon": "make compressed memory swap, with one command",
    "swapoff": "take such swap out of use, and undo all that it took",
    "check": "say what this machine has, and lacks, for swap volumes",
    "status": "show what is kept, how well it compresses and how often it is found",
    "top": "show that, and what goes on, again and again",
    "set": "change the budget, and what else can be changed while in use",
    "warm": "read files into memory before they are needed",
    "drop": "forget what is kept of files",
    "report": "collect in one file what somebody needs who is to help",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in `argv` (by default the program's own arguments); returns the exit code."""
    _fill_standard_descriptors()
    try:
        return _dispatch(list(sys.argv[1:] if argv is None else argv))
    except SystemExit as exc:  # argparse, after --help
        return exc.code if isinstance(exc.code, int) else 0
    except BrokenPipeError:
        # The reader had enough, as in `tmemfs status | head -1`. Nothing more may be written, not
        # even what is left in the buffer.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except BaseException as exc:
        error = as_error(exc)
        if isinstance(error, InternalError):
            traceback.print_exc()
        sys.stdout.flush()  # what went well comes first
        print(f"tmemfs: {error}", file=sys.stderr)
        return error.exit_code


def _fill_standard_descriptors() -> None:
    """Open what the caller closed of 0, 1 and 2: else it is the number of a file of ours."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    # The interpreter has none of those that were closed when it started.
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")


def _dispatch(argv: list[str]) -> int:
    first = argv[0] if argv else "--help"
    if first in COMMANDS:
        return _run(first, argv[1:])
    if first in ("-h", "--help"):
        _overview().print_help()
        return 0
    if first in ("-V", "--version"):
        print(f"tmemfs {tmemfs.__version__}")
        return 0
    if _is_mount_helper(argv):
        return _run("mount", [BY_MOUNT_HELPER, *argv])
    if first.startswith("-"):
        raise UsageError.unknown("option", first, ["--help", "--version"])
    raise UsageError.unknown("command", first, COMMANDS)


def _run(command: str, argv: list[str]) -> int:
    module = importlib.import_module(f"tmemfs.cli.commands.{command}")
    status: int = module.run(module.parser().parse(argv))
    sys.stdout.flush()  # here, where a broken pipe is still handled
    return status


def _is_mount_helper(argv: list[str]) -> bool:
    """Whether this is `SOURCE MOUNTPOINT [options]`, as mount.fuse3 calls it."""
    first = argv[0]
    if first.startswith("-"):
        return len(argv) > 2
    if "/" in first or os.path.isdir(first):
        return True
    return len(argv) > 1 and not argv[1].startswith("-") and not did_you_mean(first, COMMANDS)


def _overview() -> Parser:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {what}" for name, what in COMMANDS.items()]
    return Parser(
        "tmemfs",
        "Compressed, budgeted memory for slow files and for swap.",
        "commands:\n" + "\n".join(lines) + "\n\n'tmemfs COMMAND --help' explains a command.\n"
        "'tmemfs SOURCE MOUNTPOINT -o ...' is what mount(8) calls for the type fuse.tmemfs.",
        "tmemfs [--help] [--version] COMMAND ...",
    )
