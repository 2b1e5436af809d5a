"""Takes the steps of `safety` in order, before swap may depend on the daemon.

The steps themselves are in `tmemfs.swap.safety`; `docs/swap-safety.md` has the reasons and what was
measured.
"""

import contextlib
import logging

from tmemfs.config import TABLES_PER_PAGE, MountConfig
from tmemfs.errors import SystemFailure
from tmemfs.linux import heap, system
from tmemfs.native.storage import make_storage
from tmemfs.swap import safety
from tmemfs.swap.safety import Step
from tmemfs.swap.volume import PAGE_SIZE
from tmemfs.tmem import Core
from tmemfs.tmem.storage import PythonStorage
from tmemfs.units import format_size

log = logging.getLogger(__name__)

# What the row of a page in its segment takes; its place is in `TABLES_PER_PAGE`. Those of pages
# that were replaced stay until their segment is needed: as many as fill the budget with pages of so
# many bytes each.
_ROW_PER_PAGE, _SMALL_PAGE = 13, 1024
# What requests take while they are served, and writes until they are compressed: a dozen of 256 KiB
# (of 1 MiB where files are served, too), each copied once or twice. Those of a volume with an
# overflow file wait for it, up to a dozen at a time, and so does what leaves memory.
_BUFFERS = 16 << 20
_BUFFERS_WAITING = 24 << 20
# How deep the thread that serves ever gets, and nearly twice that. The frame of lz4's binding alone
# has 256 KiB: it has the states of all kinds of compression in it.
STACK = 512 << 10


def safe_core(config: MountConfig) -> tuple[Core, list[Step]]:
    """Return the core of a mount, and the steps that were taken so that swap can depend on it.

    Without swap volumes none are. All memory that swap needs is there afterwards, and locked.
    """
    if not config.swaps:
        return _core(config), []
    # Before the core maps its memory, which must not be made resident whole.
    steps = [safety.lock_memory(system.physical_memory())]
    core = _core(config)
    core.keep_warm(core.capacity if config.reserve is None else config.reserve)
    for _ in safety.touching(core.warm_up):
        pass
    steps.append(_reserved(core))
    pages = sum(swap.size for swap in config.swaps) // PAGE_SIZE
    rows = max(pages, config.budget // _SMALL_PAGE)
    tables = min(pages * TABLES_PER_PAGE + rows * _ROW_PER_PAGE, config.budget // 2)
    heap.warm(_heap(config, 0 if core.storage.keep_tables(tables) else tables))
    # The last: until here the machine may make room for us.
    steps += safety.go_first(real_time=config.realtime)
    return core, steps


def _core(config: MountConfig) -> Core:
    """Return a core whose budget may grow as far as the system lets it be mapped for.

    With its tables in C where that can be. Raises SystemFailure where not even the budget can be
    mapped.
    """
    budget, native = config.budget, make_storage() if config.native else None
    # Shared memory is a file, which may be held to a limit of its own (ulimit -f).
    for storage in (native, PythonStorage) if native else (PythonStorage,):
        for capacity in (system.usable_memory(), 4 * budget, 2 * budget, budget):
            with contextlib.suppress(OSError, MemoryError):
                return Core(budget, max(capacity, budget), storage)
    raise SystemFailure(
        f"budget: {format_size(budget)} of address space are refused; raise 'ulimit -v', or see "
        "vm.overcommit_memory in proc(5)"
    )


def finish(steps: list[Step], lacking: str) -> None:
    """Add to *steps* what is known only when the mount is there, and log those not in place.

    *lacking* is why requests take new memory of the kernel's, empty where they do not.
    """
    if not steps:
        return
    steps.append(_requests(lacking))
    for step in steps:
        if not step.done:
            log.info("swap is less safe than it could be: %s", step.text)


def _reserved(core: Core) -> Step:
    budget = format_size(core.budget)
    if core.budget - core.warm_bytes <= core.budget // 16:
        return Step("reserve", True, f"the memory of the whole budget ({budget}) is there")
    return Step(
        "reserve",
        False,
        f"of the budget of {budget} only {format_size(core.warm_bytes)} are there before they are "
        "needed: grant a budget that the machine has free, and no smaller reserve",
    )


def _requests(lacking: str) -> Step:
    if not lacking:
        return Step("requests", True, "a request takes no new memory from the kernel")
    return Step(
        "requests",
        False,
        f"the kernel takes new memory for each request ({lacking}): grant the daemon "
        "its extension, with a C compiler and libfuse's headers at installation",
    )


def _heap(config: MountConfig, tables: int) -> int:
    """How many bytes of heap serving the swap volumes may take, their *tables* among it."""
    waiting = _BUFFERS_WAITING if any(swap.overflow for swap in config.swaps) else 0
    return _BUFFERS + waiting + min(tables, config.budget // 2)
