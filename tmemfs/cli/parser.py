"""Command lines, read by argparse, and refused in one line that names the nearest valid word."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import NoReturn

from tmemfs.errors import UsageError

BY_MOUNT_HELPER = "--by-mount-helper"
"""what stands before `SOURCE MOUNTPOINT -o ...`, which mount.fuse3 has put together"""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are UsageErrors, and whose options are not abbreviated.

    An abbreviation that is unique today is an error after the next option was added, and it
    would hide a misspelt option.
    """

    def __init__(self, prog: str, description: str, epilog: str = "", usage: str = "") -> None:
        super().__init__(
            prog=prog,
            usage=usage or None,
            description=description,
            epilog=epilog or None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """What `argv` says. Raises UsageError; `--help` prints it and raises SystemExit."""
        known = self._option_string_actions
        for word in argv:
            if word == "--":
                break
            name = word.partition("=")[0]
            # Before argparse sees it: it would take the value of an unknown option for a path.
            if re.match(r"--\w", name) and name not in known:
                raise UsageError.unknown("option", name, [key for key in known if key[1] == "-"])
        arguments, rest = self.parse_known_args(argv)
        if rest and re.match(r"-\w", rest[0]):
            raise UsageError(f"unknown option {rest[0]!r}{self._see_help()}")
        if rest:
            raise UsageError(f"{rest[0]!r} is one argument too many{self._see_help()}")
        self._refuse_empty(arguments)
        return arguments

    def _refuse_empty(self, arguments: argparse.Namespace) -> None:
        """Raise UsageError for an empty word, as of a variable that a script has not set.

        It would count as an option that was not given, and as the working directory.
        """
        for action in self._actions:
            value = getattr(arguments, action.dest, None)
            if "" in (value if isinstance(value, list) else [value]):
                name = action.option_strings[-1] if action.option_strings else action.metavar
                raise UsageError(f"{name}: is empty{self._see_help()}")

    def error(self, message: str) -> NoReturn:
        """What argparse calls; instead of a usage text and an exit."""
        raise UsageError(message + self._see_help())

    def _see_help(self) -> str:
        return f"; see '{self.prog} --help'"
