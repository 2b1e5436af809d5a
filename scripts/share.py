"""Writes what is installed beside the package: manual pages and completions for shells.

    python scripts/share.py DIRECTORY

All of it comes from the parsers of the commands and from the glossary, and none of it is kept in
the repository. It needs shtab, and none of what tmemfs itself needs.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

# Not installed: what it reads is beside it, and the package above.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import completions
import manual

from tmemfs.cli.main import COMMANDS
from tmemfs.cli.parser import Parser


def main(argv: list[str]) -> int:
    """Write below the directory that is named."""
    [directory] = argv
    for name, text in contents().items():
        path = Path(directory, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


def contents() -> dict[str, str]:
    """Every file, by its path below ``share``."""
    os.environ["COLUMNS"] = "74"  # of a usage, which man indents
    parsers = {command: _parser(command) for command in COMMANDS}
    pages = {
        f"man/man8/tmemfs-{command}.8": manual.command_page(command, parser)
        for command, parser in parsers.items()
    }
    return {
        **pages,
        "man/man8/tmemfs.8": manual.overview_page(),
        "man/man5/tmemfs-options.5": manual.options_page(parsers["mount"]),
        "man/man5/tmemfs-figures.5": manual.figures_page(),
        "bash-completion/completions/tmemfs": completions.bash(parsers),
        "zsh/site-functions/_tmemfs": completions.zsh(parsers),
        "fish/vendor_completions.d/tmemfs.fish": completions.fish(parsers),
    }


def _parser(command: str) -> Parser:
    module = importlib.import_module(f"tmemfs.cli.commands.{command}")
    made: Parser = module.parser()
    return made


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
