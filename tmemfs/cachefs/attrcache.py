"""Caches attributes, negative entries and listings for as long as the kernel may.

Over a network each question takes a journey. But an answer may be believed for a while, the kernel
does (``attr_timeout``, ``entry_timeout``), and so may we: who is told of something later is told to
believe it for as much less. Three things are kept for that long:

* attributes, as an open or a question has brought them: `tar` asks for them again after each read;
* names that were not there: programs look for the same ones again and again;
* a whole directory, where some names were found in it one after the other: `git status` and `make`
  want most of them, and one listing brings as much as a journey for each.

Of a local filesystem nothing is kept, for it answers at once. What we have changed since is not
believed (`Inode.changed`). Of a listing, what it has is believed, and not that something is not
there: some names can be looked up, but are not listed.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict

import trio

from tmemfs.cachefs.inode import Inode
from tmemfs.cachefs.source.executor import Asked
from tmemfs.cachefs.source.routes import Look, Stat

# Files whose attributes are kept, names that are missing, and those in listings; the latest.
_FILES = 1024
_NEGATIVE_ENTRIES = 4096
_NAMES = 8192
_DIRECTORIES = 1024
# Listings under way: one may never end, and there is a thread for so many.
_UNDER_WAY = 16
# So many names are found before the whole directory is listed.
_IN_A_ROW = 2
# Of a larger one, who knows what is wanted.
LARGEST = 1024
# Nobody waits longer (s) than this for a listing: something in the directory may not answer.
_LISTING_TIMEOUT_S = 0.1
# A directory that is too large, or takes too long, is not listed again for this long (s); one in
# which we have changed names meanwhile, for that.
_NOT_AGAIN = 60.0
_NOT_YET = 1.0


class Listing:
    """What there is in a directory, by name; empty until it is `done`, or if it fails."""

    __slots__ = ("asked", "begun", "done", "looks", "newer", "slow", "void")

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.begun = False
        self.done = trio.Event()
        self.looks: dict[bytes, Look] = {}
        self.newer: set[bytes] = set()
        """names of which more was heard while it was under way"""
        self.slow = False
        self.void = False
        """whether nothing that it brings will be believed"""

    async def wait(self) -> None:
        """Wait until it is there, but not for long."""
        if not self.slow:
            with trio.move_on_after(_LISTING_TIMEOUT_S):
                await self.done.wait()
            self.slow = not self.done.is_set()


class _Directory:
    """What is known of a directory since *begun* (s)."""

    __slots__ = ("begun", "found", "listing", "not_before")

    def __init__(self, begun: float) -> None:
        self.begun = begun
        self.found = 0
        self.listing: Listing | None = None
        self.not_before = 0.0
        """when it may be listed again"""


class AttrCache:
    """Believes attributes for *attributes* seconds, and names for *names*; 0 for not at all."""

    def __init__(self, attributes: float, names: float) -> None:
        self._attributes = attributes
        # Who is told of a name is told of its attributes as well.
        self._names = min(attributes, names)
        self._files: OrderedDict[Inode, tuple[Stat, Asked]] = OrderedDict()
        self._negative: OrderedDict[tuple[Inode, bytes], Asked] = OrderedDict()
        self._directories: OrderedDict[Inode, _Directory] = OrderedDict()
        self._listed = 0
        self._under_way = 0
        self._heard = -math.inf
        """when that was asked for which brought a name last"""

    def clear(self) -> None:
        """Forget everything."""
        self._files.clear()
        self._negative.clear()
        self._listed = 0
        for parent, directory in list(self._directories.items()):
            if directory.listing is not None and not directory.listing.done.is_set():
                directory.listing.void = True  # and no second one beside it
            else:
                del self._directories[parent]

    # -- attributes --------------------------------------------------------------------------

    def note(self, inode: Inode, info: Stat, asked: Asked) -> None:
        """Keep attributes, and when they were *asked* for."""
        if inode.parent is not None:
            self._outdate(inode.parent, inode.name, asked)
        keeps = self._attributes and not inode.filesystem.local
        if keeps and not self.is_newer(inode, asked):
            self._files[inode] = info, asked
            self._files.move_to_end(inode)
            if len(self._files) > _FILES:
                self._files.popitem(last=False)

    def update(self, inode: Inode, info: Stat, asked: Asked) -> None:
        """As `note`, where older ones are kept: what is told must not go back and forth."""
        # By another name, another listing may have older ones.
        if inode in self._files or (info.st_nlink > 1 and not inode.is_directory):
            self.note(inode, info, asked)

    def is_newer(self, inode: Inode, asked: Asked) -> bool:
        """Whether attributes are kept that were asked for after *asked*."""
        known = self._files.get(inode)
        return known is not None and known[1].when > asked.when

    def attributes(self, inode: Inode) -> tuple[Stat, float] | None:
        """Return the attributes of *inode* and their age (s), None if they are to be asked for."""
        if inode not in self._files:
            return None
        info, asked = self._files[inode]
        age = time.monotonic() - asked.when
        return (info, age) if age < self._attributes and inode.changed <= asked.changes else None

    # -- names that are not there ------------------------------------------------------------

    def note_negative(self, parent: Inode, name: bytes, asked: Asked) -> None:
        """Note that *name* was not in *parent*."""
        self._outdate(parent, name, asked)
        # Somebody may have heard of it since; when that was is not kept for each name.
        keeps = self._names and not parent.filesystem.local
        if keeps and self._heard <= asked.when:
            self._negative[parent, name] = asked
            self._negative.move_to_end((parent, name))
            if len(self._negative) > _NEGATIVE_ENTRIES:
                self._negative.popitem(last=False)

    def has_negative(self, parent: Inode, name: bytes) -> bool:
        """Whether *name* may be said not to be in *parent*."""
        asked = self._negative.get((parent, name))
        return asked is not None and self._is_fresh(parent, asked)

    # -- names that are there ----------------------------------------------------------------

    def heard(self, parent: Inode, name: bytes, asked: Asked) -> None:
        """Note that *name* is in *parent*, not from a listing: nothing older may be told of it."""
        entry = self._negative.get((parent, name))
        if entry is not None and entry.when <= asked.when:
            del self._negative[parent, name]
        self._heard = max(self._heard, asked.when)
        self._outdate(parent, name, asked)

    def found(self, parent: Inode, asked: Asked) -> None:
        """Count a name that was found in *parent*."""
        if self._names and not parent.filesystem.local:
            directory = self._directories.setdefault(parent, _Directory(asked.when))
            directory.found += 1
            self._directories.move_to_end(parent)
            self._shrink()

    def listing(self, parent: Inode, now: Asked) -> Listing | None:
        """Return a listing of *parent*, if there is one or should be.

        One that is not `begun` is for the caller to begin.
        """
        directory = self._directories.get(parent)
        if directory is None:
            return None
        if self._ended(directory):
            self._forget(self._directories.pop(parent))
            return None
        self._directories.move_to_end(parent)
        listing = directory.listing
        if listing is None:
            wanted = directory.found >= _IN_A_ROW and now.when >= directory.not_before
            if wanted and self._under_way < _UNDER_WAY:
                listing = directory.listing = Listing(now)
                self._under_way += 1
        elif listing.void:
            return None
        elif listing.done.is_set() and not self._is_fresh(parent, listing.asked):
            # Not each change of ours is to be followed by another listing.
            self._begin_again(directory, listing.asked.when + _NOT_YET)
            return None
        return listing

    def listed(self, parent: Inode, listing: Listing, looks: dict[bytes, Look] | None) -> None:
        """Note what a new *listing* of *parent* has brought: nothing, where it has failed."""
        listing.done.set()
        self._under_way -= 1
        directory = self._directories.get(parent)
        if directory is None or directory.listing is not listing:
            return
        now = time.monotonic()
        if listing.void:
            self._begin_again(directory, now)
        elif looks is None or now - listing.asked.when >= self._names:
            self._begin_again(directory, now + _NOT_AGAIN)
        else:
            listing.looks = {name: looks[name] for name in looks.keys() - listing.newer}
            self._listed += len(listing.looks)
        self._shrink()

    def told_by(self, listing: Listing, name: bytes) -> tuple[Look, float] | None:
        """Return what *listing* has of *name* and its age (s), None where it is to be asked for."""
        look = listing.looks.get(name)
        age = time.monotonic() - listing.asked.when
        return (look, age) if look is not None and age < self._names else None

    # -- inside ------------------------------------------------------------------------------

    def _is_fresh(self, parent: Inode, asked: Asked) -> bool:
        """Whether what was *asked* about names in *parent* may be told."""
        return time.monotonic() - asked.when < self._names and parent.changed <= asked.changes

    def _outdate(self, parent: Inode, name: bytes, asked: Asked) -> None:
        """Tell nothing of *name* from a listing of *parent* that is older than *asked*."""
        directory = self._directories.get(parent)
        listing = directory.listing if directory is not None else None
        if listing is None or listing.asked.when >= asked.when:
            return
        if not listing.done.is_set():
            listing.newer.add(name)
        elif listing.looks.pop(name, None) is not None:
            self._listed -= 1

    def _ended(self, directory: _Directory) -> bool:
        """Whether nothing that is known of a directory matters any more, or comes."""
        listing, now = directory.listing, time.monotonic()
        if now < directory.not_before or (listing is not None and not listing.done.is_set()):
            return False
        return now - (listing.asked.when if listing else directory.begun) >= self._names

    def _begin_again(self, directory: _Directory, not_before: float) -> None:
        self._forget(directory)
        directory.not_before = directory.begun = not_before
        directory.found = 0

    def _forget(self, directory: _Directory) -> None:
        if directory.listing is not None:
            self._listed -= len(directory.listing.looks)
            directory.listing = None

    def _shrink(self) -> None:
        """Forget directories that nobody has looked into for long, or that are too many."""
        while self._directories:
            oldest = next(iter(self._directories))
            full = len(self._directories) > _DIRECTORIES or self._listed > _NAMES
            if not full and not self._ended(self._directories[oldest]):
                break
            self._forget(self._directories.pop(oldest))
