"""What was seen of names and attributes a moment ago, and may be told again.

Over a network each question takes a journey. But an answer may be believed for a while, the kernel
does (``attr_timeout``, ``entry_timeout``), and so may we: who is told of something later is told to
believe it for as much less. Two things are kept for that long:

* attributes, as an open or a question has brought them: `tar` asks for them again after each read;
* a whole directory, where some names of it were looked up one after the other: `git status` and
  `make` want most of them, and one listing brings as much as a journey for each.

What we have changed since is not believed (`Node.changed`), and a name is only ever said to be
there, never not to be: some are found but not listed.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping

import trio

from tmemfs.volumes.backing import Asked, Stat
from tmemfs.volumes.nodes import Node
from tmemfs.volumes.routes import Look

# Files whose attributes are kept, and names in directories; those of the latest.
_FILES = 1024
_NAMES = 16384
_DIRECTORIES = 1024
# So many names are looked up before the whole directory is.
_IN_A_ROW = 2
# Of a larger one, who knows what is wanted.
LARGEST = 1024
# Nobody waits longer (s) than this for a listing: something in the directory may not answer.
_PATIENCE = 0.1


class Listing:
    """What there is in a directory, by name; empty until it is `done`, or if it fails."""

    __slots__ = ("asked", "done", "looks", "slow")

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.looks: Mapping[bytes, Look] = {}
        self.done = trio.Event()
        self.slow = False

    async def wait(self) -> None:
        """Wait until it is there, but not for long."""
        if not self.slow:
            with trio.move_on_after(_PATIENCE):
                await self.done.wait()
            self.slow = not self.done.is_set()


class _Directory:
    __slots__ = ("begun", "listing", "lookups")

    def __init__(self, begun: float) -> None:
        self.begun = begun
        self.lookups = 0
        self.listing: Listing | None = None


class Recent:
    """Believes attributes for *attributes* seconds, and names for *names*; 0 for not at all."""

    def __init__(self, attributes: float, names: float) -> None:
        self._believe = attributes
        # A listing has both.
        self._believe_listing = min(attributes, names)
        self._files: OrderedDict[Node, tuple[Stat, Asked]] = OrderedDict()
        self._directories: OrderedDict[Node, _Directory] = OrderedDict()
        self._names = 0

    # -- attributes --------------------------------------------------------------------------

    def note(self, node: Node, info: Stat, asked: Asked) -> None:
        """Note attributes, and when they were *asked* for."""
        if not self._believe:
            return
        known = self._files.get(node)
        if known is None or known[1].when <= asked.when:
            self._files[node] = info, asked
            self._files.move_to_end(node)
            if len(self._files) > _FILES:
                self._files.popitem(last=False)

    def attributes(self, node: Node) -> tuple[Stat, float] | None:
        """Return the attributes of *node* and their age (s), None if they are to be asked for."""
        if node not in self._files:
            return None
        info, asked = self._files[node]
        age = time.monotonic() - asked.when
        return (info, age) if age < self._believe and node.changed <= asked.changes else None

    # -- names -------------------------------------------------------------------------------

    def listing(self, parent: Node, now: Asked) -> tuple[Listing | None, bool]:
        """Return a listing of *parent*, if there is one or should be, and whether it is new.

        A new one is for the caller to make, as asked for *now*.
        """
        directory = self._directories.get(parent)
        if directory is None:
            return None, False
        if self._ended(directory):
            self._forget(self._directories.pop(parent))
            return None, False
        self._directories.move_to_end(parent)
        listing = directory.listing
        if listing is None and directory.lookups >= _IN_A_ROW:
            directory.listing = Listing(now)
            return directory.listing, True
        # One that has been overtaken by a change of ours stays: not each change is to be followed
        # by another listing.
        believed = listing is not None and parent.changed <= listing.asked.changes
        return (listing if believed else None), False

    def looked_up(self, parent: Node, asked: Asked) -> None:
        """Count a name that was found in *parent*."""
        if self._believe_listing:
            directory = self._directories.setdefault(parent, _Directory(asked.when))
            directory.lookups += 1
            self._directories.move_to_end(parent)
            self._shrink()

    def listed(self, parent: Node, listing: Listing, looks: Mapping[bytes, Look]) -> None:
        """Note what a new *listing* of *parent* has brought: nothing, where it has failed."""
        directory = self._directories.get(parent)
        if directory is not None and directory.listing is listing:
            listing.looks = looks
            self._names += len(looks)
        listing.done.set()
        self._shrink()

    def found(self, listing: Listing, name: bytes) -> tuple[Look, float] | None:
        """Return what *listing* has of *name* and its age (s), None where it is to be asked for."""
        look = listing.looks.get(name)
        age = time.monotonic() - listing.asked.when
        return (look, age) if look is not None and age < self._believe_listing else None

    def clear(self) -> None:
        """Forget everything."""
        self._files.clear()
        self._directories.clear()
        self._names = 0

    # -- inside ------------------------------------------------------------------------------

    def _ended(self, directory: _Directory) -> bool:
        """Whether nothing that is known of a directory is believed any more, or comes."""
        listing = directory.listing
        if listing is not None and not listing.done.is_set():
            return False
        when = directory.begun if listing is None else listing.asked.when
        return time.monotonic() - when >= self._believe_listing

    def _forget(self, directory: _Directory) -> None:
        if directory.listing is not None:
            self._names -= len(directory.listing.looks)
            directory.listing = None

    def _shrink(self) -> None:
        """Forget directories that nobody has looked into for long, or that are too many."""
        while self._directories:
            oldest = next(iter(self._directories))
            full = len(self._directories) > _DIRECTORIES or self._names > _NAMES
            if not full and not self._ended(self._directories[oldest]):
                break
            self._forget(self._directories.pop(oldest))
