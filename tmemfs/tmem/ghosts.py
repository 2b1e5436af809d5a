"""Ghosts: the handles of pages that were evicted unused, remembered for a while.

A page that comes back while its ghost is known was evicted too early, and goes to the main queue
at once. A ghost is a 32-bit fingerprint in a table indexed by the handle's hash: no chains, no
deletion, and a newer ghost simply takes an older one's place. Two handles are mistaken for each
other once in some 2^32 times, which costs a place in the wrong queue and nothing else.
"""

from array import array

from tmemfs.pages import Arena, Segment

_ENTRY_BYTES = 4


class Ghosts:
    """Room for about *pages* ghosts, rounded up to a power of two.

    A pool that never evicts has none, and the table takes no memory until the first one.
    """

    def __init__(self, arena: Arena[Segment], pages: int) -> None:
        self._mask = (1 << max(pages - 1, 1).bit_length()) - 1
        self._table: array[int] | None = None
        self._arena = arena
        self.metadata_bytes = 0

    def add(self, object_id: int, index: int) -> None:
        """Remember that this page was evicted."""
        if self._table is None:
            self.metadata_bytes = (self._mask + 1) * _ENTRY_BYTES
            self._arena.metadata_bytes += self.metadata_bytes
            self._table = array("I", bytes(self.metadata_bytes))
        slot, fingerprint = self._place(object_id, index)
        self._table[slot] = fingerprint

    def take(self, object_id: int, index: int) -> bool:
        """Say whether this page was evicted not long ago, and forget it."""
        if self._table is None:
            return False
        slot, fingerprint = self._place(object_id, index)
        if self._table[slot] != fingerprint:
            return False
        self._table[slot] = 0
        return True

    def forget(self) -> None:
        """Forget everything, and give the memory back to the account."""
        self._arena.metadata_bytes -= self.metadata_bytes
        self.metadata_bytes = 0
        self._table = None

    def _place(self, object_id: int, index: int) -> tuple[int, int]:
        # hash() of a tuple of ints is the same in every run, and well mixed.
        mixed = hash((object_id, index))
        return mixed & self._mask, (mixed >> 32 & 0xFFFFFFFF) or 1
