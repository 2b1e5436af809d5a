"""Which swap volume of which mount is meant by a name, and the mount that is its own.

`tmemfs swapon` gives a volume a mount of its own under /run/tmemfs unless it is told of another
one; `tmemfs swapoff` takes that one away again, and never another.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass

from tmemfs import loops, system
from tmemfs.cli import umount
from tmemfs.cli.figures import VOLUMES, find_mount
from tmemfs.errors import NotPermitted, SwapFailure, UsageError
from tmemfs.loops import Loop, SwapDevice
from tmemfs.system import Mount, MountState

PRIVATE = "/run/tmemfs"
HELD_SECONDS = 10.0  # who looks into a private mount is soon gone


@dataclass(frozen=True, slots=True)
class Volume:
    """The swap volume `name` of the mount at `mountpoint`, which may not be there yet."""

    name: str
    mountpoint: str
    private: bool

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
        """What is mounted at its mountpoint."""
        return system.mount_at(self.mountpoint)

    def loops(self) -> list[Loop]:
        """The loop devices on it."""
        return loops.loop_devices(self.file)

    def swaps(self) -> list[SwapDevice]:
        """What is swap on it."""
        return loops.swaps_on(self.file)

    def make_directory(self) -> None:
        """Make the directory of the private mount, for root alone: nobody else may hold it."""
        os.makedirs(PRIVATE, mode=0o755, exist_ok=True)
        with suppress(FileExistsError):
            os.mkdir(self.mountpoint, mode=0o700)

    def remove_directory(self) -> None:
        """Remove what `make_directory` made; not what is not empty, nor what is not there."""
        if self.mount is None:
            with suppress(OSError):
                os.rmdir(self.mountpoint)
                os.rmdir(PRIVATE)


def check_root() -> None:
    """Raise NotPermitted unless the caller is root."""
    if os.geteuid() != 0:
        raise NotPermitted("swap can be turned on and off by root only")


def at(name: str, mountpoint: str) -> Volume:
    """The volume of a mount of tmemfs that is there already. Raises MountFailure."""
    mount = find_mount(system.canonical_path(mountpoint))
    return Volume(name, mount.mountpoint, private=False)


def in_use(name: str) -> Volume:
    """The volume that `name` means where no mountpoint was given.

    That of a private mount if there is one, else the only one that has a loop device. Raises
    SwapFailure where there is none, and UsageError where there are several.
    """
    own = Volume.of_its_own(name)
    mount = own.mount
    if mount is not None and mount.fstype == system.FSTYPE:
        return own
    end = f"/{VOLUMES}/{name}"
    places = {
        loop.path.removesuffix(end) for loop in loops.loop_devices("/") if loop.path.endswith(end)
    }
    if len(places) > 1:
        several = ", ".join(sorted(places))
        raise UsageError(f"{name}: several mounts have it ({several}); name one by --mountpoint")
    if not places:
        raise SwapFailure(
            f"{name}: is not on: no loop device is on a volume of this name{_others()}"
        )
    return Volume(name, places.pop(), private=False)


def state(volume: Volume) -> MountState:
    """Whether the daemon of the volume serves it; it does not where the mount is gone."""
    mount = volume.mount
    if mount is None or mount.fstype != system.FSTYPE:
        return MountState.STALE
    return system.probe(volume.mountpoint)


def take_mount_away(volume: Volume) -> None:
    """Unmount the private mount and wait until its daemon has ended; none is no error."""
    mount = volume.mount
    if mount is None or mount.fstype != system.FSTYPE:
        return
    served = system.probe(volume.mountpoint)
    if served is MountState.STALE:
        system.unmount(volume.mountpoint, lazy=True)
    else:
        umount.take_away(mount, served, held=HELD_SECONDS)


def _others() -> str:
    marker = f"/{VOLUMES}/"
    names = {os.path.basename(loop.path) for loop in loops.loop_devices("/") if marker in loop.path}
    return f"; there is {', '.join(sorted(names))}" if names else ""
