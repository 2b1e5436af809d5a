"""What is looked at before a mount is tried, so that each refusal is one line that says the cause.

The FUSE library would refuse most of it too, after the fork and in its own words. Nothing here
changes anything, except that a mount which a killed daemon left behind is cleared away.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import sys

from tmemfs.cli.system import holders
from tmemfs.config import MountConfig
from tmemfs.errors import MountFailure, NotPermitted, SystemFailure
from tmemfs.linux import system

FUSE_DEVICE = "/dev/fuse"
FUSE_CONF = "/etc/fuse.conf"

# Flags of the mount that the source is on; what they forbid there must not work through ours.
_RESTRICTIONS = {
    os.ST_NOSUID: "nosuid",
    os.ST_NODEV: "nodev",
    os.ST_NOEXEC: "noexec",
}


def check(config: MountConfig) -> MountConfig:
    """`config` as it can be mounted here and now: with the restrictions of its source.

    Raises MountFailure, NotPermitted or SystemFailure.
    """
    # The mountpoint's state first: a stale mount makes every other look at it fail, and the
    # source may be the same directory.
    free_mountpoint(config.mountpoint)
    _check_source(config.source)
    _check_directory(config.mountpoint, "mountpoint")
    if config.mountpoint.startswith(config.source.rstrip("/") + "/"):
        raise MountFailure(
            f"{config.mountpoint} is inside {config.source}: the mount would contain itself; "
            "mount on a directory outside, or on the source itself"
        )
    check_device()
    if not is_root():
        _check_user(config)
    flags = os.statvfs(config.source).f_flag
    return config.restricted(word for flag, word in _RESTRICTIONS.items() if flags & flag)


def is_root() -> bool:
    """Whether the caller may mount without the help of fusermount3."""
    return os.geteuid() == 0


def free_mountpoint(mountpoint: str) -> None:
    """Clear stale mounts of tmemfs away from `mountpoint`; raises MountFailure if one is alive."""
    while (mount := system.mount_at(mountpoint)) and mount.fstype == system.FSTYPE:
        state = system.probe(mountpoint)
        if state is system.MountState.ALIVE:
            raise MountFailure(f"{mountpoint}: {mount.source} is already mounted there by tmemfs")
        if state is system.MountState.SILENT:
            raise MountFailure(
                f"{mountpoint}: the tmemfs mounted there does not answer; "
                f"end its daemon, or take it away with 'tmemfs umount --lazy {mountpoint}'"
            )
        holders.refuse_swap(mount, stale=True)
        system.unmount(mountpoint, lazy=True)
        print(
            f"tmemfs: {mountpoint}: cleared away a stale mount whose daemon was gone",
            file=sys.stderr,
        )


def _check_source(source: str) -> None:
    _check_directory(source, "source")
    if not os.access(source, os.R_OK | os.X_OK):
        raise NotPermitted(f"{source}: you may not read the source directory")


def _check_directory(path: str, what: str) -> None:
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise MountFailure(f"{path}: the {what} does not exist") from None
    except NotADirectoryError:
        mode = 0
    if not stat.S_ISDIR(mode):
        raise MountFailure(f"{path}: the {what} is not a directory")


def check_device() -> None:
    try:
        os.close(os.open(FUSE_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except PermissionError:
        raise NotPermitted(
            f"{FUSE_DEVICE}: you may not open it; it is usually readable and writable by everybody"
        ) from None
    except OSError:
        raise SystemFailure(
            f"{FUSE_DEVICE}: there is no FUSE here; try 'modprobe fuse' as root"
        ) from None


def _check_user(config: MountConfig) -> None:
    """What the program fusermount3 would refuse to a user without privileges."""
    if shutil.which("fusermount3") is None:
        raise SystemFailure(
            "fusermount3 is not installed, and only root can mount without it; install fuse3"
        )
    status = os.stat(config.mountpoint)
    others = status.st_mode & stat.S_ISVTX and status.st_uid != os.getuid()
    if others or not os.access(config.mountpoint, os.W_OK):
        raise NotPermitted(
            f"{config.mountpoint}: the mountpoint belongs to {_user_name(status.st_uid)}; "
            "without root you can mount only on a directory that is yours and that you may write to"
        )
    if config.fuse_options & {"allow_other", "allow_root"} and not _user_allow_other():
        raise NotPermitted(
            f"allow_other: without root this needs the line 'user_allow_other' in {FUSE_CONF}"
        )


def _user_allow_other() -> bool:
    try:
        with open(FUSE_CONF, encoding="utf-8", errors="replace") as file:
            return any(line.partition("#")[0].strip() == "user_allow_other" for line in file)
    except OSError:
        return False


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
