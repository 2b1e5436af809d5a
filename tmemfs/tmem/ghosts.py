"""Ghosts: the handles of pages that were evicted unused, remembered for a while.

A page that comes back while its ghost is known was evicted too early, and goes to the main queue
at once. A ghost is a 32-bit fingerprint in a table indexed by the handle's hash: no chains, no
deletion, and a newer ghost simply takes an older one's place. Two handles are mistaken for each
other once in some 2^32 times, which costs a place in the wrong queue and nothing else.
"""

from array import array

from tmemfs.pages import Arena, Segment

_ENTRY_BYTES = 4

# A table smaller than this is not worth starting afresh for.
_FEWEST = 256


class Ghosts:
    """Room for about as many ghosts as the pool has pages.

    A pool that never evicts has none, and the table takes no memory until the first one.
    """

    def __init__(self, arena: Arena[Segment]) -> None:
        self._table = array("I")
        self._arena = arena

    @property
    def metadata_bytes(self) -> int:
        """What the table takes; part of the arena's account."""
        return len(self._table) * _ENTRY_BYTES

    def fit(self, pages: int) -> None:
        """Have room for about *pages* ghosts. Forgets all when that is far from what there is.

        The room follows the pool, not the budget: a pool that was pushed aside must not go on
        taking memory for what it once was.
        """
        wanted, room = max(pages, _FEWEST), len(self._table)
        if not room <= 2 * wanted <= 4 * room:
            self.forget()
            self._table = array("I", (0,)) * wanted
            self._arena.metadata_bytes += self.metadata_bytes

    def add(self, object_id: int, index: int) -> None:
        """Remember that this page was evicted. There must be room (`fit`)."""
        slot, fingerprint = self._place(object_id, index)
        self._table[slot] = fingerprint

    def take(self, object_id: int, index: int) -> bool:
        """Say whether this page was evicted not long ago, and forget it."""
        if not self._table:
            return False
        slot, fingerprint = self._place(object_id, index)
        if self._table[slot] != fingerprint:
            return False
        self._table[slot] = 0
        return True

    def forget(self) -> None:
        """Forget everything, and give the memory back to the account."""
        self._arena.metadata_bytes -= self.metadata_bytes
        self._table = array("I")

    def _place(self, object_id: int, index: int) -> tuple[int, int]:
        # hash() of a tuple of ints is the same in every run, and well mixed.
        mixed = hash((object_id, index))
        return mixed % len(self._table), (mixed >> 32 & 0xFFFFFFFF) or 1
