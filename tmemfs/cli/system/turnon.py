"""The steps of turning swap on: a mount, a loop device, a swap header and swapon.

Each says how it is undone, which takes back what it made itself and nothing else.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable

from tmemfs.cli import background
from tmemfs.cli.interrupts import SIGNALS, Undo
from tmemfs.cli.system import overflowfile, preflight, swaptools, swapvolume
from tmemfs.cli.system.swapvolume import Volume
from tmemfs.config import MountConfig
from tmemfs.errors import SwapFailure, TmemfsError
from tmemfs.linux import loops
from tmemfs.linux.loops import Loop
from tmemfs.units import format_size


class Steps:
    """The steps, as the command line asks for them."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments

    def mount(self, undo: Undo, volume: Volume, config: MountConfig) -> None:
        """Mount an empty directory over itself, served by a daemon in the background."""
        (spec,) = config.swaps
        if spec.overflow is not None:
            overflowfile.check_overflow(spec.overflow, spec.size)
            with undo.held():
                made = overflowfile.make(spec.overflow)
                if made is not None:
                    undo.callback(_whatever_happens, lambda: overflowfile.remove(made))
        with undo.held():
            if volume.make_directory():
                undo.callback(volume.remove_directory)
        # There was no mount when this was looked at, and nobody else makes one while it is locked.
        undo.callback(_whatever_happens, lambda: swapvolume.take_mount_away(volume))
        checked = preflight.check(config)
        background.start(lambda ready: _serve(checked, ready), checked.log)
        self._say(f"{volume.mountpoint} is mounted, with a budget of {format_size(config.budget)}")

    def attach(self, undo: Undo, volume: Volume) -> Loop:
        """Put a loop device on the file of the volume."""
        with undo.held():
            loop = swaptools.attach(volume.file)
            undo.callback(_whatever_happens, lambda: swaptools.detach(loop))
        self._say(f"{loop.device} is on {volume.file}")
        return loop

    def swap_on(self, undo: Undo, loop: Loop) -> None:
        """Make it swap."""
        with undo.held():
            said = swaptools.make_swap(loop.device, self.arguments.name)
        self._say(said.partition("\n")[0])
        policy = self._discard_policy(loop)

        def off() -> None:
            for swap in loops.swaps_on(loop):
                swaptools.run("swapoff", swap.device)

        undo.callback(_whatever_happens, off)
        with undo.held():
            swaptools.swap_on(loop.device, self.arguments.priority, policy)
        self._say(f"{loop.device} is swap, discard: {policy or 'none'}")

    def _discard_policy(self, loop: Loop) -> str | None:
        asked: str | None = self.arguments.discard
        if self.arguments.no_discard:
            return None
        if loop.takes_discards():
            return asked or "both"
        if asked:
            raise SwapFailure(f"{loop.device}: has no discard; see 'tmemfs check'")
        return None

    def _say(self, line: str) -> None:
        if self.arguments.verbose:
            complain(line)


def _serve(config: MountConfig, ready: Callable[[], None]) -> None:
    """What the daemon does: without what the command does on a signal."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    background.serve(config, ready)


def _whatever_happens(step: Callable[[], None]) -> None:
    """Undo a step; if that fails, say so and go on, for the first failure is the one to tell."""
    try:
        step()
    except (OSError, TmemfsError) as exc:
        complain(f"cannot be undone: {exc}")


def complain(line: str) -> None:
    """Write a line to stderr."""
    print(f"tmemfs: {line}", file=sys.stderr)
