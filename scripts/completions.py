"""Completions for bash, zsh and fish, from the parsers of the commands; each a script as text.

Those for bash and zsh are shtab's, which knows no lists such as `-o ro,cache=open`, nor fish.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import groupby

import shtab

from tmemfs.cli.main import COMMANDS
from tmemfs.cli.parser import Parser
from tmemfs.config import offered_options

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


def bash(parsers: dict[str, Parser]) -> str:
    """The script for bash."""
    options = _BASH_OPTIONS.format(options=" ".join(offered_options()))
    return shtab.complete(_whole(parsers), "bash") + options


def zsh(parsers: dict[str, Parser]) -> str:
    """The script for zsh."""
    return shtab.complete(_whole(parsers), "zsh")


def fish(parsers: dict[str, Parser]) -> str:
    """The script for fish."""
    return "".join(_fish_lines(parsers))


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
                    "preamble": {"zsh": _zsh_options()},
                }
        commands.add_parser(command, parents=[parser], add_help=False, help=COMMANDS[command])
    return whole


def _zsh_options() -> str:
    """The function that completes a list of mount options."""
    described = []
    for key, group in groupby(offered_options(), key=lambda option: option.partition("=")[0]):
        values = [option.partition("=")[2] for option in group if "=" in option]
        what = f":{key}:({' '.join(values).strip()})" if values else ""
        described.append(f"'{key}{what}'")
    return _ZSH_OPTIONS.format(options=" ".join(described))


def _fish_lines(parsers: dict[str, Parser]) -> Iterator[str]:
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
