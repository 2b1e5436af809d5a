"""Which mount is meant, and its figures, as its daemon writes them in `.tmemfs/status.json`."""

from __future__ import annotations

import json
import os
from typing import Any

from tmemfs.errors import MountFailure, NotPermitted, from_os_error
from tmemfs.linux import system
from tmemfs.linux.system import Mount

Figures = dict[str, Any]

CONTROL = ".tmemfs"
STATUS_FILE = ".tmemfs/status.json"
VOLUMES = ".tmemfs/swap"


def visible_mounts() -> list[Mount]:
    """The mounts of tmemfs that a path leads to: what is below another mount cannot be asked."""
    places = dict.fromkeys(mount.mountpoint for mount in system.tmemfs_mounts())
    tops = [system.mount_at(place) for place in places]
    return [top for top in tops if top is not None and top.fstype == system.FSTYPE]


def find_mount(mountpoint: str) -> Mount:
    """The tmemfs mount at a canonical path. Raises MountFailure, saying what is there instead."""
    mount = system.mount_at(mountpoint)
    if mount is None:
        raise MountFailure(f"{mountpoint}: nothing is mounted there")
    if mount.fstype != system.FSTYPE:
        raise MountFailure(f"{mountpoint}: what is mounted there is {mount.fstype}, not tmemfs")
    return mount


class Question:
    """The daemon of `mount` asked what it says of itself."""

    def __init__(self, mount: Mount) -> None:
        self._where = mount.mountpoint
        self._call = system.Call(lambda: _read(mount.mountpoint))

    @property
    def under_way(self) -> bool:
        """Whether an answer may still come."""
        return self._call.under_way

    def answer(self, seconds: float) -> Figures:
        """The answer, waited for no longer than so many seconds.

        Raises MountFailure where the mount is stale, does not answer in time or answers nonsense,
        and NotPermitted where it belongs to somebody else.
        """
        where = self._where
        try:
            figures = json.loads(self._call.result(seconds))
        except TimeoutError:
            raise MountFailure(f"{where}: the daemon does not answer") from None
        except PermissionError:
            raise NotPermitted(f"{where}: the mount belongs to another user") from None
        except OSError as exc:
            if system.is_gone(exc):
                raise MountFailure(
                    f"{where}: the mount is stale, its daemon is gone; "
                    f"clear it away with 'tmemfs umount {where}', or mount it again"
                ) from None
            raise from_os_error(exc) from exc
        except ValueError as exc:
            raise MountFailure(f"{where}: {STATUS_FILE} is not readable as JSON: {exc}") from None
        if not isinstance(figures, dict):
            raise MountFailure(f"{where}: {STATUS_FILE} holds no object")
        return figures


def read_figures(mount: Mount) -> Figures:
    """What the daemon of `mount` says of itself; raises as `Question.answer` does."""
    return Question(mount).answer(system.ANSWER_SECONDS)


def control_file(mount: Mount, name: str) -> str:
    """The path of a knob, or of another control file."""
    return os.path.join(mount.mountpoint, CONTROL, name)


def refuse_read_only(mount: Mount) -> None:
    """Raise MountFailure where the kernel lets nobody write to a mount, nor control it."""
    if "ro" in mount.options | mount.super_options:
        raise MountFailure(f"{mount.mountpoint}: is mounted read-only, and so is what controls it")


def write_control(mount: Mount, name: str, text: str) -> None:
    """Write a line to a control file; the OSError of a refusal names the file."""
    path = control_file(mount, name)
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, f"{text}\n".encode())
    except OSError as exc:
        raise OSError(exc.errno, exc.strerror, path) from exc
    finally:
        os.close(fd)


def kept(figures: Figures) -> tuple[int, int]:
    """How much of its source a mount keeps: files, and the size of their pages, uncompressed."""
    pools = [pool for pool in figures.get("pools") or [] if pool["kind"] == "ephemeral"]
    return sum(pool["objects"] for pool in pools), sum(pool["orig_data_size"] for pool in pools)


def count_of_files(count: int) -> str:
    """`count` files, in words."""
    return f"{count} file{'' if count == 1 else 's'}"


def volumes_of(figures: Figures) -> dict[str, Figures]:
    """The swap volumes of a mount by name, with what its daemon says of each."""
    swaps = figures.get("swaps")
    found = swaps if isinstance(swaps, list) else []
    return {swap["name"]: swap for swap in found if isinstance(swap, dict) and "name" in swap}


def lacking_steps(figures: Figures) -> list[dict[str, str]]:
    """What the daemon could not do to be safe: a `step` and a `text` each."""
    steps = figures.get("safety")
    found = steps if isinstance(steps, list) else []
    return [
        {key: str(step.get(key)) for key in ("step", "text")}
        for step in found
        if isinstance(step, dict) and not step.get("done")
    ]


def _read(mountpoint: str) -> bytes:
    with open(os.path.join(mountpoint, STATUS_FILE), "rb") as file:
        return file.read()
