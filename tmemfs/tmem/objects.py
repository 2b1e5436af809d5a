"""The index: which page of which object is where, in flat arrays.

An object's pages are found through a radix of small arrays, tmem's *objnodes*: node ``n`` covers
the indices ``64 n`` to ``64 n + 63``. Slots 0 and 1 of a node are 64-bit maps of the pages that
were used since they were stored, and used again after that (S3-FIFO wants no more); slot ``2 + i``
is the location of page ``i``, 0 where there is none. A node is only as long as it must be, so that
a small file costs little.

The index and what it says lives in the segments change together, node by node: a change is worked
out first, which may fail, and then made by steps of which only the first can. So an error, memory
that runs out above all, leaves a node as it was or as it was to be, and everything else agrees.
"""

from array import array
from collections.abc import Iterator

from tmemfs.pages import Arena, Segment, SegmentLog
from tmemfs.pages.locations import is_overflowed
from tmemfs.pages.log import Lives, freed, release_empty

NODE_BITS = 6
NODE_PAGES = 1 << NODE_BITS
_NODE_MASK = NODE_PAGES - 1
_SLOT_BYTES = 8
MAPS = 2  # slots before the first location

# Nodes grow by this many slots at a time.
_GROWTH = 4
_BLANK_NODE = array("Q", bytes((MAPS + NODE_PAGES) * _SLOT_BYTES))
_NO_NODE = array("Q")
NO_LIVES: Lives = []
# What Python takes for an object beside its nodes, and for a node beside its slots: an id and a
# stamp of 192 bits, an entry in a dict, an Object, its dict of nodes; an array and its entry.
# Measured by allocating 100,000 of each (tests/tmem/test_objects.py keeps the figures honest).
OBJECT_OVERHEAD = 440
NODE_OVERHEAD = 160


class Object:
    """The pages of one object, by index. Made and dropped by its `ObjectTable`."""

    __slots__ = ("id", "nodes", "number", "pages", "stamp")

    def __init__(self, object_id: int, number: int) -> None:
        self.id = object_id
        self.number = number
        self.pages = 0
        self.stamp = 0
        self.nodes: dict[int, array[int]] = {}

    def location(self, index: int) -> int:
        """Return where page *index* is, 0 when it is not there."""
        node = self.nodes.get(index >> NODE_BITS)
        slot = MAPS + (index & _NODE_MASK)
        return node[slot] if node is not None and slot < len(node) else 0

    def use(self, index: int) -> int:
        """Return where page *index* is, 0 when it is not there; it has been used from now on."""
        node = self.nodes.get(index >> NODE_BITS)
        if node is None:
            return 0
        low = index & _NODE_MASK
        try:
            location = node[low + MAPS]
        except IndexError:
            return 0
        # Most uses are of pages that have both marks.
        again, mark = node[1], 1 << low
        if not again & mark:
            used = node[0]
            if used & mark:
                node[1] = again | mark
            else:
                node[0] = used | mark
        return location

    def used(self, index: int) -> bool:
        """Say whether the page at *index*, which must be there, was used since it was stored."""
        return bool(self.nodes[index >> NODE_BITS][0] >> (index & _NODE_MASK) & 1)

    def uses(self, index: int) -> int:
        """Return how often the page at *index*, which must be there, was used: 0, 1, or 2 for more.

        Since it was stored, that is.
        """
        node, low = self.nodes[index >> NODE_BITS], index & _NODE_MASK
        return (node[0] >> low & 1) + (node[1] >> low & 1)

    def unmark(self, index: int) -> None:
        """Let the page at *index*, which must be there, count as not used."""
        _clear(self.nodes[index >> NODE_BITS], 1 << (index & _NODE_MASK))

    def run(self, index: int, count: int, *, mark: bool) -> list[int]:
        """Return the locations of *count* pages from *index* on, 0 for absent ones.

        With *mark*, those that are there have been used from now on.
        """
        locations: list[int] = []
        while count > 0:
            low = index & _NODE_MASK
            length = min(count, NODE_PAGES - low)
            node = self.nodes.get(index >> NODE_BITS)
            if node is not None:
                found = node[MAPS + low : MAPS + low + length]
                if mark:
                    # Marks of absent pages do no harm: a put clears its page's marks.
                    marks = ((1 << length) - 1) << low
                    node[1] |= node[0] & marks
                    node[0] |= marks
                locations.extend(found)
                absent = length - len(found)
            else:
                absent = length
            if absent:
                locations.extend([0] * absent)
            index += length
            count -= length
        return locations

    def parts(self, index: int, count: int) -> list[tuple[int, int]]:
        """Return the parts (first, last) of a run that may hold pages, one for each node."""
        end = index + count
        first, last = index >> NODE_BITS, ((end - 1) >> NODE_BITS) + 1
        if last - first == 1:
            return [(index, end)]
        # Few where the run is long and the object is not.
        sparse = last - first > len(self.nodes)
        numbers = list(self.nodes) if sparse else range(first, last)
        return [
            (max(index, number << NODE_BITS), min(end, (number + 1) << NODE_BITS))
            for number in numbers
            if number in self.nodes and first <= number < last
        ]


class ObjectTable:
    """The objects of one pool, by object id and, for the rows of a segment, by number.

    What the table takes is added to ``arena.heap_bytes``.
    """

    def __init__(self, arena: Arena[Segment]) -> None:
        self._arena = arena
        self.pages = 0
        self.overflowed = 0
        """how many of the pages are in an overflow file"""
        self.metadata_bytes = 0
        self._by_id: dict[int, Object] = {}
        self.find = self._by_id.get
        """the object of an id, None when no page of it is there: asked for by every request"""
        self._by_number: list[Object | None] = []
        # The numbers that are free, so many of its first. It has places for all numbers, so that an
        # object goes without taking memory, and is no list: its ints would outlive their objects.
        self._numbers = array("I")
        self._free = 0

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Object]:
        return iter(self._by_id.values())

    def obtain(self, object_id: int) -> Object:
        """Return the object of that id. A new one joins the table with its first page.

        Until then, none other may be obtained.
        """
        found = self._by_id.get(object_id)
        if found is not None:
            return found
        if not self._free:
            number = len(self._numbers)
            if number == len(self._by_number):
                self._by_number.append(None)
            self._numbers.append(number)
            self._numbers[0], self._free = number, 1
        return Object(object_id, self._numbers[self._free - 1])

    def owner(self, number: int) -> Object | None:
        """Return the object of that number, None when it is gone."""
        return self._by_number[number]

    def store(
        self, owner: Object, index: int, locations: list[int], lives: Lives = NO_LIVES
    ) -> None:
        """Let the pages of *owner* from *index* on be at *locations*; they were not used yet.

        They are of one node, and in the arena or outside, all of them. What was there is dead, and
        what is to live in other segments (*lives*) does.
        """
        number, start = index >> NODE_BITS, MAPS + (index & _NODE_MASK)
        end, charge = start + len(locations), 0
        node = owner.nodes.get(number, _NO_NODE)
        if not node:
            charge = NODE_OVERHEAD if owner.pages else NODE_OVERHEAD + OBJECT_OVERHEAD
        if end > len(node):
            # A sum of arrays is as long as it says; one that is extended gets spare room.
            more = _BLANK_NODE[len(node) : end + _GROWTH]
            node, charge = node + more, charge + len(more) * _SLOT_BYTES
        before = list(filter(None, node[start:end]))
        _clear(node, ((1 << len(locations)) - 1) << (start - MAPS))
        overflowed = len(locations) if is_overflowed(locations[0]) else 0
        if before:
            inside = self._inside(before)
            overflowed -= len(before) - len(inside)
            lives = [*freed(self._arena, inside), *lives]
        added = len(locations) - len(before)
        self._commit(owner, number, node, start, locations, added, overflowed, charge, lives)

    def remove(self, owner: Object, first: int, last: int) -> int:
        """Remove the pages *first* to *last* of *owner*, of one node; return how many there were.

        A node goes with its last page, and an object with its last node.
        """
        number, start = first >> NODE_BITS, MAPS + (first & _NODE_MASK)
        node = owner.nodes.get(number, _NO_NODE)
        end = min(start + last - first, len(node))
        gone = list(filter(None, node[start:end]))
        if not gone:
            return 0
        inside, charge = self._inside(gone), 0
        lives, overflowed = freed(self._arena, inside), len(inside) - len(gone)
        if not (any(node[MAPS:start]) or any(node[end:])):
            charge = -NODE_OVERHEAD - len(node) * _SLOT_BYTES
            if owner.pages == len(gone):
                charge -= OBJECT_OVERHEAD
            node = _NO_NODE
        zeros = [0] * (end - start)
        self._commit(owner, number, node, start, zeros, -len(gone), overflowed, charge, lives)
        return len(gone)

    # Nobody else can read what is here; see `tmemfs.tmem.storage.Table`.

    native = None
    staged = 0
    is_next_in_stage = False

    def take_hits(self) -> int:
        return 0

    def take_puts(self) -> tuple[int, int, int, int]:
        return 0, 0, 0, 0

    def show_heads(self, log: SegmentLog, raw: SegmentLog) -> None:
        pass

    def watch(self, pages: int) -> None:
        pass

    def hide(self, first: int, last: int) -> None:
        pass

    def show(self, first: int, last: int) -> None:
        pass

    def clear(self) -> None:
        """Forget every object at once; what lives in segments is for the caller."""
        left = self._arena.heap_bytes - self.metadata_bytes
        self._by_id, self._by_number, self._numbers, self._free = {}, [], array("I"), 0
        self.find = self._by_id.get
        self.pages = self.overflowed = self.metadata_bytes = 0
        self._arena.heap_bytes = left

    # -- inside ------------------------------------------------------------------------------

    def _inside(self, locations: list[int]) -> list[int]:
        """Those of *locations* that are in the arena."""
        return [x for x in locations if not is_overflowed(x)] if self.overflowed else locations

    def _commit(
        self,
        owner: Object,
        number: int,
        node: "array[int]",
        start: int,
        locations: list[int],
        pages: int,
        overflowed: int,
        charge: int,
        lives: Lives,
    ) -> None:
        """Let *locations* be in *node* from slot *start* on, and all agree with it.

        The node is the object's of that *number* from now on; it has none if there are no slots.
        *pages*, *outside* and *charge* are what comes or goes. All that takes memory, ints too, is
        made before anything changes.
        """
        slots, chunk = slice(start, start + len(locations)), array("Q", locations)
        mine, pages, overflowed = (
            owner.pages + pages,
            self.pages + pages,
            self.overflowed + overflowed,
        )
        metadata, charged = self.metadata_bytes + charge, self._arena.heap_bytes + charge
        to_live, empty = iter(lives), [segment for segment, live in lives if not live[0]]
        free = self._free + 1 if owner.pages else self._free - 1
        if node:
            # The first step, and the only one that can fail: a dict may have to grow.
            owner.nodes[number] = node
            if not owner.pages:
                self._by_id[owner.id] = self._by_number[owner.number] = owner
                self._free = free
            node[slots] = chunk
        else:
            del owner.nodes[number]
            if not mine:
                del self._by_id[owner.id]
                self._by_number[owner.number] = None
                self._numbers[self._free], self._free = owner.number, free
        owner.pages, self.pages, self.overflowed = mine, pages, overflowed
        self.metadata_bytes, self._arena.heap_bytes = metadata, charged
        for segment, live in to_live:
            segment.live = live
        if empty:
            release_empty(empty)


def _clear(node: "array[int]", marks: int) -> None:
    """Let the pages of these *marks* count as not used, which most are not."""
    if node[0] & marks:
        node[0] &= ~marks
        node[1] &= ~marks
