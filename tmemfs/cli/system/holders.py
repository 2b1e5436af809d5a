"""Who keeps a mount from being taken away.

Nothing here asks the mounted filesystem: an open file is recognised by the mount id in fdinfo
(proc(5)), a mapping by its device number, a loop device by the filesystem of its file, another
mount by its parent. What the caller may not look at, other users' processes above all, is left out.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from tmemfs.errors import MountFailure
from tmemfs.linux import blockdevices, loops, system
from tmemfs.linux.loops import Loop
from tmemfs.linux.system import Mount


@dataclass(frozen=True, slots=True)
class Holder:
    """One thing that holds a mount, and how: `process 812 (vim)`, `its working directory`."""

    what: str
    how: str

    def __str__(self) -> str:
        return f"{self.what}: {self.how}"


def find_holders(mount: Mount) -> list[Holder]:
    """Everything that can be seen to hold `mount`: mounts, loop devices, processes."""
    return [*_mounts(mount), *_loop_devices(mount), *_processes(mount)]


def _mounts(mount: Mount) -> Iterator[Holder]:
    for other in system.read_mounts():
        if other.parent_id == mount.mount_id:
            yield Holder(f"mount {other.mountpoint}", f"{other.fstype}, mounted below it")


# --- loop devices ----------------------------------------------------------------------------


def refuse_swap(mount: Mount, *, stale: bool) -> None:
    """Raise MountFailure where something on `mount` is swap."""
    for loop in loops.on(mount.device):
        for swap in loops.swaps_on(loop):
            force = " --force" if stale else ""
            where = shlex.quote(mount.mountpoint)
            raise MountFailure(
                f"{mount.mountpoint}: is in use as swap ({swap.device}); first "
                f"'tmemfs swapoff {os.path.basename(loop.path)} --mountpoint {where}{force}'"
            )


def _loop_devices(mount: Mount) -> Iterator[Holder]:
    for loop in loops.on(mount.device):
        with suppress(OSError):  # detached since
            yield Holder(f"loop device {loop.device}", f"on {loop.path}, {_use_of_loop(loop)}")


def _use_of_loop(loop: Loop) -> str:
    device = loop.device
    for swap in loops.swaps_on(loop):
        return f"used as swap (swapoff {swap.device} first)"
    mounted = [
        mount.mountpoint
        for mount in system.read_mounts()
        if mount.device == loop.number or mount.source == device
    ]
    if mounted:
        return f"mounted at {mounted[0]}"
    above = os.listdir(f"{blockdevices.SYS}/block/{loop.name}/holders")
    if above:
        return f"used by {', '.join(sorted(above))}"
    return f"not in use (losetup --detach {device})"


# --- processes -------------------------------------------------------------------------------


def _processes(mount: Mount) -> Iterator[Holder]:
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        # A process may end while it is looked at, and others' are not shown to everybody.
        with suppress(OSError):
            ways = list(dict.fromkeys(_ways_of(pid, mount)))
            if ways:
                more = f" and {len(ways) - 1} more" if len(ways) > 1 else ""
                command = _text(f"/proc/{pid}/comm")
                yield Holder(f"process {pid} ({command})", ways[0] + more)


def _ways_of(pid: int, mount: Mount) -> Iterator[str]:
    """How process `pid` holds `mount`, the way that is easiest to act on first."""
    directory = f"/proc/{pid}"
    links = {"cwd": "its working directory", "root": "its root directory"}
    for link, how in links.items():
        if _mount_of_link(f"{directory}/{link}") == mount.mount_id:
            yield f"{how} {os.readlink(f'{directory}/{link}')}"
    for fd in os.listdir(f"{directory}/fd"):
        with suppress(OSError):
            if _mount_in_fdinfo(f"{directory}/fdinfo/{fd}") == mount.mount_id:
                yield f"open file {os.readlink(f'{directory}/fd/{fd}')}"
    device = b"%02x:%02x" % mount.device
    with open(f"{directory}/maps", "rb") as maps:
        for line in maps:
            # 7f00-7f10 r-xp 00000000 00:2a 1234    /mnt/lib.so
            fields = line.split(maxsplit=5)
            if fields[3] == device and len(fields) == 6:
                yield f"mapped file {os.fsdecode(fields[5].rstrip())}"


def _mount_of_link(link: str) -> int | None:
    """The id of the mount that a link in /proc leads to.

    Opened as a path only, which asks no filesystem, not even the one it leads to.
    """
    with suppress(OSError):
        fd = os.open(link, os.O_PATH | os.O_CLOEXEC)
        try:
            return _mount_in_fdinfo(f"/proc/self/fdinfo/{fd}")
        finally:
            os.close(fd)
    return None


def _mount_in_fdinfo(path: str) -> int | None:
    match = re.search(r"^mnt_id:\s*(\d+)$", _text(path), flags=re.MULTILINE)
    return int(match[1]) if match else None


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read().rstrip("\n")
