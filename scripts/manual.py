"""Manual pages of the commands, of the mount options and of the figures, in the language of man.

They are what the parsers and the glossary say; each function returns a page as text.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from itertools import groupby

import tmemfs
from tmemfs.cli.main import COMMANDS
from tmemfs.cli.parser import Parser
from tmemfs.glossary import FIGURES


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
