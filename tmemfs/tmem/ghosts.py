"""Ghosts: the handles of pages that were evicted from new, remembered for a while.

A page that comes back while its ghost is known was evicted too early, and goes to the main queue
at once. How long that while is matters where a loop is a little longer than what is remembered: it
would push its own pages out of main. So a ghost has an age, and counts for as long as 0.9 times the
pool's pages were evicted since.

A ghost is an age of 8 bits and a fingerprint of 24, in a table indexed by the handle's hash: in a
bucket of four, from which the oldest drops out at the end. No chains, no deletion. Two handles are
mistaken for each other once in some four million times, which costs a place in the wrong queue and
nothing else.
"""

from array import array

from tmemfs.pages import Arena, Segment

_ENTRY_BYTES = 4
_AGE_SHIFT = 24
_FINGERPRINT = (1 << _AGE_SHIFT) - 1
_AGES = 256
# A ghost counts until it is this old.
_OLD = 16

_BUCKET = 4
# A table smaller than this is not worth starting afresh for.
_FEWEST = 256


class Ghosts:
    """Room for the ghosts that count: nine for ten pages of the pool.

    A pool that never evicts has none, and the table takes no memory until the first one.
    """

    def __init__(self, arena: Arena[Segment]) -> None:
        self._table = array("I")
        self._arena = arena
        self._age = 0
        self._step = 1
        self._left = 1

    @property
    def metadata_bytes(self) -> int:
        """What the table takes; part of the arena's account."""
        return len(self._table) * _ENTRY_BYTES

    def fit(self, pages: int) -> None:
        """Have room for a pool of *pages*. Forgets all when that is far from what there is.

        The room follows the pool, not the budget: a pool that was pushed aside must not go on
        taking memory for what it once was.
        """
        # Half as many again as there are pages, so that few buckets overflow.
        wanted, room = max(pages * 3 // 2, _FEWEST), len(self._table)
        if not room <= 2 * wanted <= 4 * room:
            self._begin(array("I", (0,)) * (-(-wanted // _BUCKET) * _BUCKET))
        self._step = max(pages * 9 // 10 // _OLD, 1)

    def add(self, object_id: int, index: int) -> None:
        """Remember that this page was evicted. There must be room (`fit`)."""
        self._left -= 1
        if self._left <= 0:
            self._left = self._step
            self._age = (self._age + 1) % _AGES
        first, fingerprint = self._place(object_id, index)
        last = first + _BUCKET
        self._table[first + 1 : last] = self._table[first : last - 1]
        self._table[first] = self._age << _AGE_SHIFT | fingerprint

    def take(self, object_id: int, index: int) -> bool:
        """Say whether this page was evicted not long ago, and forget it."""
        if not self._table:
            return False
        first, fingerprint = self._place(object_id, index)
        for slot, ghost in enumerate(self._table[first : first + _BUCKET], first):
            if ghost & _FINGERPRINT == fingerprint:
                self._table[slot] = 0
                return (self._age - (ghost >> _AGE_SHIFT)) % _AGES < _OLD
        return False

    def forget(self) -> None:
        """Forget everything, and give the memory back to the account."""
        self._begin(array("I"))

    def _begin(self, table: "array[int]") -> None:
        """Begin afresh with *table*, which is there already: nothing has changed without it."""
        growth = (len(table) - len(self._table)) * _ENTRY_BYTES
        self._table, self._arena.heap_bytes = table, self._arena.heap_bytes + growth

    def _place(self, object_id: int, index: int) -> tuple[int, int]:
        """Where the page's bucket begins, and its fingerprint, which is not 0."""
        # hash() of a tuple of ints is the same in every run, and well mixed.
        mixed = hash((object_id, index))
        return mixed % (len(self._table) // _BUCKET) * _BUCKET, (mixed >> 32 & _FINGERPRINT) or 1
