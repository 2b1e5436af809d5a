"""The program of `program.c` under a memory limit: what each of its steps took."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memory_limit import MemoryLimit

from benchmarks.compiler import compile_c

SOURCE = Path(__file__).with_name("program.c")
STEPS = ("fill", "scan", "random read", "random write")
PAGE = 4096
END_SECONDS = 60


class WrongPage(Exception):
    """A swap device gave back something else than what it had been given."""


@dataclass(frozen=True)
class Step:
    """What one step took: seconds for all of it, and for single accesses that were page faults."""

    pages: int
    seconds: float
    faults: int
    p50: float
    p99: float

    @property
    def seconds_a_page(self) -> float:
        return self.seconds / self.pages

    @classmethod
    def of_line(cls, said: dict[str, Any]) -> "Step":
        """From one line of the program, whose times are in nanoseconds."""
        nanosecond = 1e-9
        return cls(
            said["pages"],
            said["ns"] * nanosecond,
            said["faults"],
            said["p50"] * nanosecond,
            said["p99"] * nanosecond,
        )


class Program:
    """The program with *pages* pages, a quarter of which have room, and *corpus* (see `stored`)."""

    def __init__(self, binary: Path, corpus: int, pages: int) -> None:
        self.pages = pages
        self.limit = pages * PAGE // 4
        # As many accesses at random as half of the pages: they are by far the slowest.
        self._command = [str(binary), str(corpus), str(pages), str(pages // 2), "1"]
        self._corpus = corpus

    def run(self, swapped_out: Callable[[], int]) -> dict[str, Step]:
        """Run it; its steps by name. *swapped_out* tells bytes on the swap device now.

        Raises WrongPage, or OSError where it did not live to the end, or was not swapped out
        to that device.
        """
        with (
            MemoryLimit(self.limit) as limit,
            subprocess.Popen(
                limit.command(self._command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                pass_fds=[self._corpus],
                start_new_session=True,
            ) as program,
        ):
            try:
                return self._attend(program, swapped_out)
            finally:
                program.kill()  # no harm where it has ended

    def _attend(
        self, program: subprocess.Popen[str], swapped_out: Callable[[], int]
    ) -> dict[str, Step]:
        assert program.stdout is not None
        lines = [json.loads(program.stdout.readline() or "{}") for _ in (*STEPS, "last check")]
        swapped = swapped_out()
        _, said = program.communicate(timeout=END_SECONDS)
        if "is wrong" in said:
            raise WrongPage(said.strip())
        if program.returncode:
            raise OSError(f"the program ended with {program.returncode}: {said.strip()}")
        if swapped < (self.pages * PAGE - self.limit) // 2:
            raise OSError(f"only {swapped} bytes were on the device: is there other swap?")
        return {line["step"]: Step.of_line(line) for line in lines}


def compile_program(directory: Path) -> Path:
    """Make the program in *directory*. Raises OSError where that cannot be done here."""
    binary = directory / "program"
    compile_c(SOURCE, binary)
    return binary


@contextmanager
def stored(corpus: bytes) -> Iterator[int]:
    """The descriptor of a file with *corpus* in it, in memory that is not the program's."""
    descriptor = os.memfd_create("corpus")
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(corpus)
        yield descriptor
    finally:
        os.close(descriptor)
