"""`tmemfs check`: what this machine has, and lacks, for swap volumes. It changes nothing."""

from __future__ import annotations

import argparse
import sys

from tmemfs import config
from tmemfs.cli.parser import Parser
from tmemfs.cli.system import machine
from tmemfs.cli.system.machine import Level
from tmemfs.units import parse_size

_EPILOG = """\
Each line says whether something is in place (ok), should be looked at (warning) or is missing, and
what to do about it. What the daemon may do is tried as it would do it, by a process that ends at
once; a service may be permitted more than a shell. Missing is what swapon fails without, or a
machine that runs out of memory as a whole.

exit codes:
  0  swap volumes can be used
  1  something is missing
"""


def parser() -> Parser:
    """The command line of the command."""
    made = Parser(
        "tmemfs check", "Say what this machine has, and lacks, for swap volumes.", _EPILOG
    )
    made.add_argument(
        "--budget",
        metavar="SIZE",
        help="the budget that is to have room in memory; default that of 'tmemfs swapon'",
    )
    made.add_argument(
        "--overflow",
        action="store_true",
        help="for volumes with an overflow file, which ask more of the machine",
    )
    return made


def run(arguments: argparse.Namespace) -> int:
    """Print a line for each finding; 1 when one of them is missing."""
    budget = parse_size(arguments.budget) if arguments.budget else config.default_budget()
    findings = list(machine.findings(budget=budget, overflow=arguments.overflow))
    width = max(len(finding.topic) for finding in findings)
    for finding in findings:
        level = finding.level.value
        sys.stdout.write(f"{level:7}  {finding.topic:{width}}  {finding.text}\n")
    return int(any(finding.level is Level.MISSING for finding in findings))
