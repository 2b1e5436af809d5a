"""The index: which page of which object is where, in flat arrays.

An object's pages are found through a radix of small arrays, tmem's *objnodes*: node ``n`` covers
the indices ``64 n`` to ``64 n + 63``. Slots 0 and 1 of a node are 64-bit maps of the pages that
were used since they were stored, and used again after that (S3-FIFO wants no more); slot ``2 + i``
is the location of page ``i``, 0 where there is none. A node is only as long as it must be, so that
a small file costs little.
"""

from array import array
from collections.abc import Iterator

from tmemfs.pages import Arena, Segment

NODE_BITS = 6
NODE_PAGES = 1 << NODE_BITS
_NODE_MASK = NODE_PAGES - 1
_SLOT_BYTES = 8
MAPS = 2  # slots before the first location

# Nodes grow by this many slots at a time.
_GROWTH = 4
_BLANK_NODE = array("Q", bytes((MAPS + NODE_PAGES) * _SLOT_BYTES))
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

    def spans(self, index: int, count: int) -> list[tuple[int, int]]:
        """Return parts (first, last) of a run that hold all its pages, few where it is sparse."""
        end = index + count
        if count <= NODE_PAGES * len(self.nodes):
            return [(index, end)]
        bases = [number << NODE_BITS for number in self.nodes]
        return [
            (max(index, base), min(end, base + NODE_PAGES))
            for base in bases
            if base < end and index < base + NODE_PAGES
        ]

    def items(self) -> Iterator[tuple[int, int]]:
        """Yield (index, location) of every page that is there, in no particular order."""
        for number, node in self.nodes.items():
            base = number << NODE_BITS
            for low, location in enumerate(node[MAPS:]):
                if location:
                    yield base + low, location


class ObjectTable:
    """The objects of one pool, by object id and, for the rows of a segment, by number.

    What the table takes is added to ``arena.metadata_bytes``.
    """

    def __init__(self, arena: Arena[Segment]) -> None:
        self._arena = arena
        self._by_id: dict[int, Object] = {}
        self._by_number: list[Object | None] = []
        # Not a list: its ints would outlive their objects by the million.
        self._free_numbers = array("I")
        self.pages = 0
        self.metadata_bytes = 0

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Object]:
        return iter(self._by_id.values())

    def find(self, object_id: int) -> Object | None:
        """Return the object of that id, None when no page of it is there."""
        return self._by_id.get(object_id)

    def obtain(self, object_id: int) -> Object:
        """Return the object of that id; a new one has no pages yet and must get one."""
        found = self._by_id.get(object_id)
        if found is None:
            number = self._free_numbers.pop() if self._free_numbers else len(self._by_number)
            found = Object(object_id, number)
            if number == len(self._by_number):
                self._by_number.append(found)
            else:
                self._by_number[number] = found
            self._by_id[object_id] = found
            self._charge(OBJECT_OVERHEAD)
        return found

    def owner(self, number: int) -> Object | None:
        """Return the object of that number, None when it is gone."""
        return self._by_number[number]

    def store(self, owner: Object, index: int, locations: list[int]) -> None:
        """Let the pages of *owner* from *index* on be at *locations*, not used yet.

        Each page must be absent or be one that moves: older locations are not freed here.
        """
        first = 0
        if len(locations) == 1:
            # Most puts are of one page, for which the slices below cost as much as all the rest.
            node, low = owner.nodes.get(index >> NODE_BITS), index & _NODE_MASK
            if node is not None and low + MAPS < len(node):
                if not node[low + MAPS]:
                    owner.pages += 1
                    self.pages += 1
                node[low + MAPS] = locations[0]
                _clear(node, 1 << low)
                return
        while first < len(locations):
            number, low = (index + first) >> NODE_BITS, (index + first) & _NODE_MASK
            chunk = array("Q", locations[first : first + NODE_PAGES - low])
            node = owner.nodes.get(number)
            if node is None:
                node = _BLANK_NODE[:0]
                self._charge(NODE_OVERHEAD)
            start, end = MAPS + low, MAPS + low + len(chunk)
            if end > len(node):
                # A sum of arrays is as long as it says; one that is extended gets spare room.
                more = _BLANK_NODE[len(node) : end + _GROWTH]
                node = owner.nodes[number] = node + more
                self._charge(len(more) * _SLOT_BYTES)
            added = node[start:end].count(0)
            owner.pages += added
            self.pages += added
            node[start:end] = chunk
            _clear(node, ((1 << len(chunk)) - 1) << low)
            first += len(chunk)

    def take(self, owner: Object, index: int, count: int) -> list[int]:
        """Remove *count* pages of *owner* from *index* on; return where they were, 0 for absent.

        An object goes with its last page.
        """
        locations = [owner.location(index)] if count == 1 else owner.run(index, count, mark=False)
        found = count - locations.count(0)
        if not found:
            return locations
        owner.pages -= found
        self.pages -= found
        if not owner.pages:
            self.drop(owner)
            return locations
        for number in range(index >> NODE_BITS, ((index + count - 1) >> NODE_BITS) + 1):
            node = owner.nodes.get(number)
            if node is None:
                continue
            base = number << NODE_BITS
            start = MAPS + max(index - base, 0)
            end = min(MAPS + index + count - base, len(node))
            if start < end:
                node[start:end] = array("Q", bytes((end - start) * _SLOT_BYTES))
                if not any(node[MAPS:]):
                    del owner.nodes[number]
                    self._charge(-(NODE_OVERHEAD + len(node) * _SLOT_BYTES))
        return locations

    def drop(self, owner: Object) -> None:
        """Forget *owner* and all it knows of its pages."""
        self.pages -= owner.pages
        slots = sum(map(len, owner.nodes.values()))
        self._charge(-(OBJECT_OVERHEAD + len(owner.nodes) * NODE_OVERHEAD + slots * _SLOT_BYTES))
        del self._by_id[owner.id]
        self._by_number[owner.number] = None
        self._free_numbers.append(owner.number)

    def clear(self) -> None:
        """Forget every object at once."""
        self._by_id.clear()
        self._by_number.clear()
        del self._free_numbers[:]
        self.pages = 0
        self._charge(-self.metadata_bytes)

    def _charge(self, change: int) -> None:
        self.metadata_bytes += change
        self._arena.metadata_bytes += change


def _clear(node: "array[int]", marks: int) -> None:
    """Let the pages of these *marks* count as not used, which most are not."""
    if node[0] & marks:
        node[0] &= ~marks
        node[1] &= ~marks
