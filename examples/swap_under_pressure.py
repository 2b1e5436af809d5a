"""A program with a quarter of the memory that it needs, on a swap file of a tmemfs mount."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from loop_swap import swap_on, used_swap
from memory_limit import MemoryLimit, memory_controller
from tmemfs_mount import TmemfsMount

from tmemfs.cli.interrupts import Undo

PROGRAM = Path(__file__).with_name("memory_pressure.py")
MIB = 1 << 20


class SwapUnderPressure:
    """The run on a mount with a swap volume NAME: *size* bytes of pages, a quarter in memory."""

    NAME = "swap0"
    SMALLEST = 64 * MIB  # a quarter of it is what the interpreter and some pages need

    def __init__(self, budget: int) -> None:
        # Half of what is filled is what it takes when compressed: it fits the budget, with room
        # for what the kernel leaves in slots that it does not need any more.
        self.size = min(budget, 256 * MIB) // MIB * MIB

    @property
    def mount_options(self) -> list[str]:
        """What `tmemfs mount` is to be told: a swap volume some larger than what is filled."""
        return [] if self.lacking() else [f"--swap={self.NAME}={self.size + self.size // 4}"]

    def lacking(self) -> str | None:
        """Why it cannot be run here; None where it can."""
        if os.geteuid() != 0:
            return "needs root: loop devices, swapon and a memory cgroup are root's"
        if memory_controller() is None:
            return "needs a kernel with a memory cgroup, version 1 or 2"
        if not Path("/dev/loop-control").exists():
            return "needs loop devices (modprobe loop)"
        if self.size < self.SMALLEST:
            return f"needs a budget of {self.SMALLEST // MIB}M or more"
        return None

    def run(self, undo: Undo, mount: TmemfsMount) -> Iterator[str]:
        """Run it; yields a line for each step with the figures as they were just then.

        Raises OSError where the program found a wrong page or did not live to the end.
        """
        swap = undo.enter_context(ExitStack())
        file = mount.path / ".tmemfs" / "swap" / self.NAME
        with undo.held():
            device = swap.enter_context(swap_on(file))
            limit = swap.enter_context(MemoryLimit(self.size // 4))
            program = subprocess.Popen(
                limit.command([sys.executable, PROGRAM, "--mib", str(self.size // MIB)]),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            swap.enter_context(program)
            swap.callback(program.kill)
        yield f"{device}: {self.size // MIB} MiB of pages under a limit of {limit.size // MIB} MiB"
        assert program.stdout is not None
        for line in program.stdout:
            used = used_swap(device) or 0
            yield f"{line.strip()}\n  {used / MIB:.0f} MiB swapped out; {mount.memory_line()}"
        code = program.wait()
        with undo.held():
            swap.close()
        if code:
            raise OSError(_why(code))
        yield f"swap is off\n  {mount.memory_line()}"


def _why(code: int) -> str:
    if code == 1:
        return "the program found wrong pages in its memory: that is a bug in tmemfs"
    if code == -signal.SIGKILL:
        return "the program was killed for want of memory: its pages could not be swapped out"
    if code == -signal.SIGBUS:
        return "the program was killed because its pages could not be read back from swap"
    return f"the program ended with exit code {code}"
