"""Which swap volume of which mount is meant by a name, and the mount that is its own.

`tmemfs swapon` gives a volume a mount of its own under /run/tmemfs unless it is told of another
one; `tmemfs swapoff` takes that one away again, and never another. A mount may have been moved
since, or taken out of sight: what stays is the number of its filesystem.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from tmemfs.cli.figures import VOLUMES, find_mount, read_figures, visible_mounts
from tmemfs.cli.system import locks, unmounting
from tmemfs.errors import MountFailure, NotPermitted, SwapFailure, TmemfsError, UsageError
from tmemfs.linux import loops, system
from tmemfs.linux.blockdevices import Number
from tmemfs.linux.loops import Loop, SwapDevice
from tmemfs.linux.system import Mount, MountState

PRIVATE = locks.PLACE
HELD_SECONDS = 10.0  # who looks into a private mount is soon gone


@dataclass(frozen=True, slots=True)
class Volume:
    """The swap volume `name` of the mount at `mountpoint`, which may not be there yet.

    Where the mount is out of sight, taken away lazily or in another mount namespace, `hidden` is
    the number of its filesystem, and `mountpoint` is where it was as far as that can be told.
    """

    name: str
    mountpoint: str
    private: bool
    hidden: Number | None = None

    @classmethod
    def of_its_own(cls, name: str) -> Volume:
        """The volume on the mount that is there for it alone."""
        return cls(name, f"{PRIVATE}/{name}", private=True)

    @property
    def file(self) -> str:
        """The path of its file."""
        return f"{self.mountpoint}/{VOLUMES}/{self.name}"

    @property
    def mount(self) -> Mount | None:
        """The mount of tmemfs at its mountpoint."""
        mount = None if self.hidden else system.mount_at(self.mountpoint)
        return mount if mount is not None and mount.fstype == system.FSTYPE else None

    def loops(self) -> list[Loop]:
        """The loop devices on it."""
        if self.hidden is not None:
            return [loop for loop in loops.on(self.hidden) if self._is_named_by(loop)]
        mount = self.mount
        found = loops.on(mount.device) if mount is not None else []
        inode = self._inode() if found else None
        if inode is None:
            return [loop for loop in found if self._is_named_by(loop)]
        return [loop for loop in found if loop.file is not None and loop.file.inode == inode]

    def swaps(self) -> list[SwapDevice]:
        """What is swap on it."""
        return [swap for loop in self.loops() for swap in loops.swaps_on(loop)]

    def make_directory(self) -> bool:
        """Make the directory of the private mount, for root alone; say whether it was not there.

        For root alone, so that nobody else may hold the mount.
        """
        os.makedirs(PRIVATE, mode=0o755, exist_ok=True)
        try:
            os.mkdir(self.mountpoint, mode=0o700)
        except FileExistsError:
            return False
        return True

    def remove_directory(self) -> None:
        """Remove what `make_directory` made; not what is not empty, nor what is not there."""
        with suppress(OSError):
            os.rmdir(f"{PRIVATE}/{self.name}")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let no other command change what is at its mountpoint; see `locks.locked`."""
        try:
            with locks.locked(self.mountpoint):
                yield
        finally:
            with suppress(OSError):  # there are others
                os.rmdir(PRIVATE)

    def _inode(self) -> int | None:
        """The inode of its file, where the daemon answers."""
        try:
            return system.within(system.ANSWER_SECONDS, lambda: os.stat(self.file)).st_ino
        except OSError:
            return None

    def _is_named_by(self, loop: Loop) -> bool:
        """Whether the path of the file of a loop device ends as ours does."""
        return loop.path.endswith(f"/{VOLUMES}/{self.name}")


def check_root() -> None:
    """Raise NotPermitted unless the caller is root."""
    if os.geteuid() != 0:
        raise NotPermitted("swap can be turned on and off by root only")


def at(name: str, mountpoint: str) -> Volume:
    """The volume of a mount of tmemfs that is there already. Raises MountFailure."""
    mount = find_mount(system.canonical_path(mountpoint))
    return Volume(name, mount.mountpoint, private=False)


def in_use(name: str, mountpoint: str | None = None) -> Volume:
    """The volume that is meant by `name`, of the mount at `mountpoint` if one was given.

    Without: that of a private mount if there is one, else the only one that has a loop device. With
    a mountpoint where nothing is mounted any more: that of the mount that was moved from there, or
    the only one on a mount that is out of sight. Raises SwapFailure or MountFailure where there is
    none, and UsageError where there are several.
    """
    if mountpoint is not None:
        try:
            return at(name, mountpoint)
        except MountFailure:
            found = [
                volume
                for volume in _with_loops(name)
                if volume.hidden or _was_at(volume, system.canonical_path(mountpoint))
            ]
            if not found:
                raise
    else:
        own = Volume.of_its_own(name)
        if own.mount is not None:
            return own
        found = list(_with_loops(name))
    if len(found) > 1:
        several = ", ".join(sorted(volume.mountpoint for volume in found))
        raise UsageError(f"{name}: several mounts have it ({several}); name one by --mountpoint")
    if not found:
        raise SwapFailure(
            f"{name}: is not on: no loop device is on a volume of this name{_others()}"
        )
    return found[0]


def refuse_elsewhere(name: str) -> None:
    """Raise SwapFailure where a private mount of this volume is not at its place, but in use.

    It was moved, or taken away lazily. One of another mount namespace is somebody else's.
    """
    for volume in _with_loops(name):
        is_lost = volume.hidden is not None and not any(system.mounts_of(volume.hidden))
        if is_lost or (volume.private and volume.hidden is None):
            devices = ", ".join(loop.device for loop in volume.loops())
            raise SwapFailure(f"{name}: is on already: {devices}")


def _was_at(volume: Volume, mountpoint: str) -> bool:
    """Whether the mount of a volume was moved from `mountpoint`, by what its daemon knows."""
    mount = volume.mount
    try:
        return mount is not None and read_figures(mount).get("mountpoint") == mountpoint
    except TmemfsError:
        return False


def _with_loops(name: str) -> Iterator[Volume]:
    """The volumes of this name that have a loop device, in sight or not."""
    in_sight = {mount.device: mount for mount in reversed(visible_mounts())}
    hidden: dict[Number, Volume] = {}
    used = set()
    for loop in loops.attached():
        devices = [device for device in in_sight if loop.is_on(device)]
        used.update(devices)
        place = loop.path.removesuffix(f"/{VOLUMES}/{name}")
        if not devices and loop.file is not None and place != loop.path:
            where = place or f"out of sight, on {loop.device}"
            hidden[loop.file.device] = Volume(name, where, False, hidden=loop.file.device)
    for mount in in_sight.values():
        private = mount.source == Volume.of_its_own(name).mountpoint
        volume = Volume(name, mount.mountpoint, private)
        if mount.device in used and volume.loops():
            yield volume
    yield from hidden.values()


def state(volume: Volume) -> MountState:
    """Whether the daemon of the volume serves it; it does not where the mount is gone."""
    if volume.hidden is not None:
        return _state_of_devices(volume.loops())
    if volume.mount is None:
        return MountState.STALE
    return system.probe(volume.mountpoint)


def take_mount_away(volume: Volume) -> None:
    """Unmount the private mount and wait until its daemon has ended; none is no error."""
    mount = volume.mount
    if mount is None:
        return
    served = system.probe(volume.mountpoint)
    if served is MountState.STALE:
        system.unmount(volume.mountpoint, lazy=True)
    else:
        unmounting.take_away(mount, served, held=HELD_SECONDS)


def _state_of_devices(found: list[Loop]) -> MountState:
    """What reading says, where no path leads to the mount.

    In several places, because one page, but not all, may be unreadable for another reason.
    """
    try:
        readable = [system.within(system.ANSWER_SECONDS, loop.is_readable) for loop in found]
    except TimeoutError:
        return MountState.SILENT
    return MountState.ALIVE if any(readable) else MountState.STALE


def _others() -> str:
    marker = f"/{VOLUMES}/"
    names = {os.path.basename(loop.path) for loop in loops.attached() if marker in loop.path}
    return f"; there is {', '.join(sorted(names))}" if names else ""
