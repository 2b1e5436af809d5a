"""Writes what is installed beside the package: manual pages and completions for shells.

    python scripts/share.py DIRECTORY

All of it comes from the parsers of the commands and from the glossary, and none of it is kept in
the repository. It needs shtab, and none of what tmemfs itself needs.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import shtab

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tmemfs
from tmemfs.cli.main import COMMANDS
from tmemfs.cli.parser import Parser
from tmemfs.config import offered_options
from tmemfs.glossary import FIGURES

_DIRECTORIES = {"SOURCE", "MOUNTPOINT", "DIR"}
_FILES = {"FILE", "PATH"}
_MOUNT_OPTIONS = "OPTION[,OPTION...]"

# Completes the last option of a list. Bash ends a word at each equals sign, so that what is before
# it stands in another word, and must not be completed once more.
_BASH_OPTIONS = """

_tmemfs() {{
  local line="${{COMP_LINE:0:COMP_POINT}}"
  if ! [[ ${{COMP_WORDS[1]}} == mount && $line =~ [[:space:]]-o[[:space:]]+[^[:space:]]*$ ]]; then
    _shtab_tmemfs "$@"
    return
  fi
  local list="${{line##*[[:space:]]}}" current="${{COMP_WORDS[COMP_CWORD]}}" word whole
  [[ $current == "=" ]] && current=
  local option="${{list##*,}}"
  COMPREPLY=()
  for word in $(compgen -W "{options}" -- "$option"); do
    whole="${{list%"$option"}}$word"
    COMPREPLY+=("${{whole#"${{list%"$current"}}"}}")
  done
  [[ ${{COMPREPLY[0]}} == *= ]] && compopt -o nospace
  return 0
}}
complete -o bashdefault -F _tmemfs tmemfs
"""
_ZSH_OPTIONS = """
_tmemfs_options() {{
  _values -s , 'mount option' {options}
}}
"""


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
        f"man/man8/tmemfs-{command}.8": command_page(command, parser)
        for command, parser in parsers.items()
    }
    whole = _whole(parsers)
    return {
        **pages,
        "man/man8/tmemfs.8": overview_page(),
        "man/man5/tmemfs-options.5": options_page(parsers["mount"]),
        "man/man5/tmemfs-figures.5": figures_page(),
        "bash-completion/completions/tmemfs": shtab.complete(whole, "bash") + bash_options(),
        "zsh/site-functions/_tmemfs": shtab.complete(whole, "zsh"),
        "fish/vendor_completions.d/tmemfs.fish": "".join(fish(parsers)),
    }


def _parser(command: str) -> Parser:
    module = importlib.import_module(f"tmemfs.cli.commands.{command}")
    made: Parser = module.parser()
    return made


# -- manual pages ----------------------------------------------------------------------------------


def overview_page() -> str:
    """tmemfs(8): the commands."""
    lines = [
        *_head("tmemfs", 8, "compressed, budgeted memory for slow files and for swap"),
        ".SH SYNOPSIS",
        ".B tmemfs\n.I COMMAND\n[\\fIARGUMENT\\fR ...]",
        ".SH COMMANDS",
    ]
    for command, what in COMMANDS.items():
        lines += [".TP", f".BR tmemfs-{_roff(command)} (8)", _roff(what)]
    return _page(lines, [f"tmemfs-{command}(8)" for command in COMMANDS])


def command_page(command: str, parser: Parser) -> str:
    """tmemfs-COMMAND(8): from the parser of the command."""
    usage = parser.format_usage().removeprefix("usage: ")
    lines = [
        *_head(f"tmemfs-{command}", 8, COMMANDS[command]),
        ".SH SYNOPSIS",
        *_verbatim(usage),
        ".SH DESCRIPTION",
        _roff(" ".join((parser.description or "").split())),
        ".SH OPTIONS",
    ]
    for action in parser._actions:
        if action.help != argparse.SUPPRESS:
            lines += [".TP", _names(action), _roff(_help(parser, action))]
    for title, text in _sections(parser.epilog or ""):
        lines += [f'.SH "{_roff(title.upper())}"', *_table(text)]
    return _page(lines, ["tmemfs(8)", "tmemfs-options(5)"])


def options_page(mount: Parser) -> str:
    """tmemfs-options(5): what may be given to mount(8) and be in fstab(5)."""
    lines = _head("tmemfs-options", 5, "mount options of tmemfs")
    for title, text in _sections(mount.epilog or ""):
        lines += [f'.SH "{_roff(title.upper())}"', *_table(text)]
    return _page(lines, ["tmemfs-mount(8)", "mount(8)", "fstab(5)"])


def figures_page() -> str:
    """tmemfs-figures(5): what the figures of the status and the metrics mean."""
    lines = _head("tmemfs-figures", 5, "what the figures of tmemfs mean")
    for section, figures in groupby(FIGURES.items(), key=lambda item: item[0][0]):
        lines.append(f'.SH "{_roff(section.upper())}"')
        for (_, name), figure in figures:
            lines += [".TP", f".B {_roff(name)}", _roff(figure.meaning)]
    return _page(lines, ["tmemfs-status(8)"])


def _head(name: str, section: int, what: str) -> list[str]:
    return [
        f'.TH {name.upper()} {section} "" "tmemfs {tmemfs.__version__}"',
        ".SH NAME",
        f"{_roff(name)} \\- {_roff(what)}",
    ]


def _page(lines: list[str], also: list[str]) -> str:
    see = ",\n".join(f".BR {_roff(name[:-3])} {name[-3:]}" for name in also)
    return "\n".join([*lines, '.SH "SEE ALSO"', see.replace(",\n", " ,\n")]) + "\n"


def _names(action: argparse.Action) -> str:
    value = str(action.metavar or action.dest.upper())
    if not action.option_strings:
        return f".I {_roff(value)}"
    takes = f" \\fI{_roff(value)}\\fR" if action.nargs != 0 else ""
    return ", ".join(f"\\fB{_roff(name)}\\fR{takes}" for name in action.option_strings)


def _help(parser: Parser, action: argparse.Action) -> str:
    return parser._get_formatter()._expand_help(action) if action.help else ""


def _sections(epilog: str) -> Iterator[tuple[str, str]]:
    """The parts of an epilog: a title that ends with a colon, and what is indented below it."""
    title, lines = "notes", list[str]()
    for line in epilog.splitlines():
        if re.match(r"\S.*:$", line):
            if any(lines):
                yield title, "\n".join(lines)
            title, lines = line[:-1], []
        else:
            lines.append(line)
    if any(lines):
        yield title, "\n".join(lines)


def _table(text: str) -> list[str]:
    """What is a word and, after two spaces or on deeper lines, what it means; and sentences.

    Man fills those. All else stays as it is written, such as the lines of an example.
    """
    made = list[str]()
    lines = text.strip("\n").splitlines()
    while lines:
        head = lines.pop(0)
        margin = re.match(" *", head)[0]  # type: ignore[index]
        entry = re.fullmatch(r"( *(\S+(?: \S+)*) {2,})(\S.*)", head)
        # Words may stand to the right in their column: what goes on stands below the meaning.
        deeper = " " * len(entry[1]) if entry else margin + "  "
        if entry or (lines and lines[0].startswith(deeper)):
            term, told = (entry[2], [entry[3]]) if entry else (head.strip(), [])
            while lines and lines[0].startswith(deeper):
                told.append(lines.pop(0).strip())
            made += [".TP", f".B {_roff(term)}", _roff(" ".join(told))]
        elif _is_prose(head):
            told = [head.strip()]
            while lines and re.match(margin + r"\S", lines[0]):
                told.append(lines.pop(0).strip())
            made += [".PP", _roff(" ".join(told))]
        elif head.strip():
            made += _verbatim(head)
    return made


def _is_prose(line: str) -> bool:
    """Whether it is a sentence: it stands at the margin, or has a comma with a space, or an end."""
    return bool(re.search(r"^\S|, |,$|\.$", line))


def _verbatim(text: str) -> list[str]:
    lines = text.strip("\n").splitlines()
    return [".nf", *(_roff(line) or "\\&" for line in lines), ".fi"]


def _roff(text: str) -> str:
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^(?=[.'])", r"\\&", text)


# -- completions -----------------------------------------------------------------------------------


def _whole(parsers: dict[str, Parser]) -> argparse.ArgumentParser:
    """One parser of all commands, as shtab wants it, which knows where a path completes."""
    whole = argparse.ArgumentParser("tmemfs")
    whole.add_argument("-V", "--version", action="store_true", help="print the version")
    commands = whole.add_subparsers()
    for command, parser in parsers.items():
        for action in parser._actions:
            if action.metavar in _DIRECTORIES:
                action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
            elif action.metavar in _FILES:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
            elif action.metavar == _MOUNT_OPTIONS:
                action.complete = {  # type: ignore[attr-defined]
                    "zsh": "_tmemfs_options",
                    "preamble": {"zsh": zsh_options()},
                }
        commands.add_parser(command, parents=[parser], add_help=False, help=COMMANDS[command])
    return whole


def bash_options() -> str:
    """What bash needs besides what shtab writes, which knows no lists."""
    return _BASH_OPTIONS.format(options=" ".join(offered_options()))


def zsh_options() -> str:
    """The function of zsh that completes a list of mount options."""
    described = []
    for key, group in groupby(offered_options(), key=lambda option: option.partition("=")[0]):
        values = [option.partition("=")[2] for option in group if "=" in option]
        what = f":{key}:({' '.join(values).strip()})" if values else ""
        described.append(f"'{key}{what}'")
    return _ZSH_OPTIONS.format(options=" ".join(described))


def fish(parsers: dict[str, Parser]) -> Iterator[str]:
    """The lines for fish, which shtab does not know."""
    yield "complete -c tmemfs -f\n"
    for command, parser in parsers.items():
        what = _quoted(COMMANDS[command])
        yield f"complete -c tmemfs -n __fish_use_subcommand -a {command} -d {what}\n"
        seen = f"-n '__fish_seen_subcommand_from {command}'"
        for action in parser._actions:
            if action.help == argparse.SUPPRESS:
                continue
            files = " -F" if action.metavar in _DIRECTORIES | _FILES else ""
            if not action.option_strings:
                if files:
                    yield f"complete -c tmemfs {seen}{files}\n"
                continue
            names = " ".join(
                f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"
                for name in action.option_strings
            )
            takes = ""
            if action.nargs != 0:
                takes = " -r" if files else " -x"  # fish would add files to what takes none
            if action.metavar == _MOUNT_OPTIONS:
                takes += f" -a '(__fish_append , {' '.join(offered_options())})'"
            what = _quoted(action.help or "")
            yield f"complete -c tmemfs {seen} {names}{takes}{files} -d {what}\n"


def _quoted(text: str) -> str:
    escaped = text.replace("%%", "%").replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
