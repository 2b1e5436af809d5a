"""swapoff(8), which takes as long as it takes: shown to a person, explained, and interrupted."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time

from tmemfs.cli.interrupts import undoing
from tmemfs.cli.system import swaptools, swapvolume
from tmemfs.cli.system.swapvolume import Volume
from tmemfs.errors import Interrupted, SwapFailure
from tmemfs.linux import loops
from tmemfs.linux.loops import SwapDevice
from tmemfs.linux.system import MountState
from tmemfs.units import format_size

LOOK_SECONDS = 0.5  # how often progress is shown
STUCK_SECONDS = 20.0  # without progress for so long, it is looked why


def read_back(volume: Volume, swap: SwapDevice) -> None:
    """Run swapoff(8), showing how far it is. Ctrl-C ends it, and leaves the swap on."""
    command = [swaptools.find("swapoff"), swap.device]
    progress = _Progress(volume, swap)
    with undoing() as undo, undo.held():
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=swaptools.environment(),
        ) as child:
            while True:
                try:
                    said = child.communicate(timeout=LOOK_SECONDS)[1]
                    break
                except subprocess.TimeoutExpired:
                    progress.show()
                if undo.pending:
                    # swapoff(2) notices between two processes, and lets it be swap again.
                    child.send_signal(signal.SIGINT)
        progress.end()
        still_on = swap.device in loops.swap_devices()
        interrupted = undo.pending
        undo.forget()  # where it came too late, the rest is soon done
        if still_on and interrupted:
            raise Interrupted(f"{swap.device}: interrupted; it is still on, and nothing is lost")
        if child.returncode and still_on:
            text = swaptools.failure("swapoff", swap.device, said, child.returncode)
            raise SwapFailure(f"{text}; it is still on{hint(text)}")


def hint(said: str) -> str:
    """What to do about a failure that swapoff(8) told of; empty where that is not known."""
    if os.strerror(errno.ENOMEM) not in said:
        return ""
    return "; a memory cgroup has no room for what comes back: raise its limit, or end a program"


class _Progress:
    """What a person at a terminal sees; and why nothing happens, for everybody."""

    def __init__(self, volume: Volume, swap: SwapDevice) -> None:
        self._volume = volume
        self._swap = swap
        self._left = swap.used
        self._since = time.monotonic()
        self._shown = False
        self._told = False

    def show(self) -> None:
        """Look how far it is."""
        now = loops.swap_devices().get(self._swap.device)
        left = now.used if now else 0
        if left != self._left:
            self._left, self._since = left, time.monotonic()
        elif not self._told and time.monotonic() - self._since > STUCK_SECONDS:
            self._told = True
            self._say_why()
        if sys.stderr.isatty():
            done = format_size(max(self._swap.used - left, 0))
            text = f"{self._swap.device}: {done} of {format_size(self._swap.used)} are back"
            print(f"\r{text:60}", end="", file=sys.stderr, flush=True)
            self._shown = True

    def end(self) -> None:
        """Clear the line."""
        if self._shown:
            print(f"\r{'':60}\r", end="", file=sys.stderr, flush=True)

    def _say_why(self) -> None:
        silent = swapvolume.state(self._volume) is MountState.SILENT
        why = "the daemon does not answer" if silent else "the kernel finds it hard to make room"
        line = f"{self._swap.device}: nothing came back for {STUCK_SECONDS:g} seconds: {why}"
        print(f"tmemfs: {line}", file=sys.stderr)
