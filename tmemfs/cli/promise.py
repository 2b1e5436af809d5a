"""Whether the budget of a mount holds what its swap volumes promise to the kernel.

The kernel takes a volume for as large as it is. One without an overflow that is full of pages that
do not compress refuses them, and the kernel, which still sees room there, tries again and again: a
machine that is out of memory as a whole stops.
"""

from __future__ import annotations

from tmemfs.cli.figures import Figures, volumes_of
from tmemfs.config import SWAP_PAGE, TABLES_PER_PAGE
from tmemfs.units import format_size


def broken_promise(figures: Figures, hint: str = "") -> str | None:
    """A line that says by how much the volumes of a mount may be too large; None where they fit.

    `hint` is what to use, with `{size}` for a size that fits.
    """
    # Not before it is needed: it brings the whole core with it.
    from tmemfs.tmem.capacity import incompressible

    sizes = {True: 0, False: 0}
    for volume in volumes_of(figures).values():
        sizes[bool(volume.get("overflow"))] += volume.get("size") or 0
    inside, outside = sizes[False], sizes[True]
    budget = (figures.get("memory") or {}).get("mem_limit") or 0
    held = incompressible(budget - outside // SWAP_PAGE * TABLES_PER_PAGE)
    if not budget or inside <= held:
        return None
    return (
        f"{format_size(inside)} can be swapped out, and the budget of {format_size(budget)} holds "
        f"{format_size(held)} of pages that do not compress; when it is full, a machine that is "
        "out of memory as a whole stops"
        + hint.format(size=f"{held >> 20}M" if held >= 16 << 20 else f"{held >> 10}K")
    )
