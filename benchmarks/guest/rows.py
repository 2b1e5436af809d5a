"""The machines that run out of memory: what each has, and what is asked of it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

Overflow = Literal["none", "file", "device"]


@dataclass(frozen=True)
class Row:
    """One guest; sizes in MiB. *memory* is all that it has, *load* what a program in it fills.

    *random* in a hundred of the program's pages do not compress. *cgroup* is the limit of that
    program; 0 for none, and then the guest runs out of memory as a whole. *sysctls* are the
    kernel's settings below vm, *options* more of those of `swapon`.
    """

    name: str
    memory: int
    load: int
    budget: int
    overflow: Overflow = "none"
    random: int = 33
    size: int = 512
    cgroup: int = 0
    sysctls: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def variables(self) -> Iterator[str]:
        """The row as assignments of a shell, for `job.sh`."""
        yield f"LOAD={self.load}"
        yield f"RANDOM_PERCENT={self.random}"
        yield f"SIZE={self.size}M"
        yield f"BUDGET={self.budget}M"
        yield f"OVERFLOW={self.overflow}"
        yield f"CGROUP={f'{self.cgroup}M' if self.cgroup else 'max'}"
        yield f"SYSCTLS='{' '.join(f'vm.{setting}' for setting in self.sysctls)}'"
        yield f"OPTIONS='{' '.join(self.options)}'"


# What `tmemfs check` asks for: no boost, and 64 MiB held back.
NO_BOOST = ("watermark_boost_factor=0",)
HELD_BACK = (*NO_BOOST, "min_free_kbytes=65536")

_MEMORY = Row("memory", memory=343, load=330, budget=130)
_FULL = Row("full", memory=280, load=200, budget=64, random=100, sysctls=NO_BOOST)
_FILE = Row("file", memory=280, load=180, budget=16, overflow="file")
_DEVICE = replace(_FILE, name="device", overflow="device")

ROWS = (
    _MEMORY,
    replace(_MEMORY, name="memory-no-boost", sysctls=NO_BOOST),
    replace(_MEMORY, name="memory-no-reserve", sysctls=NO_BOOST, options=("--reserve", "4M")),
    _FULL,
    replace(_FULL, name="full-but-fits", size=57),
    _FILE,
    replace(_FILE, name="file-no-boost", sysctls=NO_BOOST),
    # More memory, for so much less of it is to be had.
    replace(_FILE, name="file-held-back", memory=400, load=200, sysctls=HELD_BACK),
    replace(_FILE, name="file-cgroup", load=120, cgroup=60),
    _DEVICE,
    replace(_DEVICE, name="device-no-boost", sysctls=NO_BOOST),
    replace(_DEVICE, name="device-held-back", memory=400, load=200, sysctls=HELD_BACK),
)
