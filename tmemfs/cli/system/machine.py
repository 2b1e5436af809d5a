"""What matters to swap volumes on this machine, one finding after the other."""

from __future__ import annotations

import enum
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from tmemfs.cli.figures import VOLUMES, read_figures, visible_mounts
from tmemfs.cli.promise import broken_promise
from tmemfs.cli.system import preflight, probe, swaptools, watermarks
from tmemfs.errors import TmemfsError
from tmemfs.linux import loops, system
from tmemfs.linux.loops import SwapDevice
from tmemfs.units import format_size

LOOP_CONTROL = loops.LOOP_CONTROL


class Level(enum.Enum):
    """How a finding stands."""

    OK = "ok"
    WARNING = "warning"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: how `topic` stands, and what to do about it."""

    level: Level
    topic: str
    text: str


def findings(*, budget: int, overflow: bool) -> Iterator[Finding]:
    """All there is to say; with `overflow`, for volumes that have an overflow file."""
    yield root()
    yield fuse()
    yield fusermount()
    yield tools()
    yield loop_devices()
    yield direct_io()
    yield discard()
    yield from daemon_steps(budget=budget, overflow=overflow)
    yield min_free()
    yield watermark_boost()
    yield zswap()
    yield other_swap()
    yield from swap_volumes()
    yield hibernation()
    yield overcommit()
    yield memory_cgroup()


# --- what swapon takes -----------------------------------------------------------------------


def root() -> Finding:
    """Whether the caller may do it."""
    if os.geteuid() == 0:
        return Finding(Level.OK, "root", "you are root")
    return Finding(Level.MISSING, "root", "loop devices and swap are root's; run it as root")


def fuse() -> Finding:
    """The device of FUSE."""
    try:
        preflight.check_device()
    except TmemfsError as exc:
        return Finding(Level.MISSING, "FUSE", str(exc))
    return Finding(Level.OK, "FUSE", f"{preflight.FUSE_DEVICE} can be opened")


def fusermount() -> Finding:
    """What mounts without root; root does without."""
    if shutil.which("fusermount3"):
        return Finding(Level.OK, "fusermount3", "is installed")
    text = "is not installed; only mounts without root need it (package fuse3)"
    return Finding(Level.WARNING, "fusermount3", text)


def tools() -> Finding:
    """The programs of util-linux."""
    lacking = []
    for tool in swaptools.TOOLS:
        try:
            swaptools.find(tool)
        except TmemfsError:
            lacking.append(tool)
    if lacking:
        text = f"{', '.join(lacking)} not installed; part of util-linux (package mount)"
        return Finding(Level.MISSING, "tools", text)
    return Finding(Level.OK, "tools", f"{', '.join(swaptools.TOOLS)} are installed")


def loop_devices() -> Finding:
    """Whether there is a loop device to be had."""
    topic = "loop device"
    try:
        fd = os.open(LOOP_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    except OSError as exc:
        text = f"{LOOP_CONTROL}: {exc.strerror}; try 'modprobe loop' as root"
        return Finding(Level.MISSING, topic, text)
    try:
        device = loops.free_device(fd)
    except OSError as exc:
        text = f"none is free ({exc.strerror}); raise max_loop of the module loop"
        return Finding(Level.MISSING, topic, text)
    finally:
        os.close(fd)
    if not os.path.exists(device):
        text = f"{device} is free and has no device node here; run it outside of the container"
        return Finding(Level.MISSING, topic, text)
    return Finding(Level.OK, topic, f"{device} is free")


def direct_io() -> Finding:
    """Loop devices that pass the page cache by: Linux 4.4 or later, and a losetup that asks."""
    topic = "direct I/O"
    try:
        known = "--direct-io" in swaptools.run("losetup", "--help")
    except TmemfsError as exc:
        return Finding(Level.MISSING, topic, str(exc))
    if known:
        return Finding(Level.OK, topic, "losetup has it; swapon sees to it that it is in force")
    return Finding(Level.MISSING, topic, "this losetup has no --direct-io; get a newer util-linux")


def discard() -> Finding:
    """Whether what the kernel frees is freed here."""
    if probe.has_extension():
        return Finding(Level.OK, "discard", "what the kernel frees is freed at once")
    return Finding(
        Level.WARNING,
        "discard",
        "what the kernel frees takes memory until it is written again; install a C compiler and "
        "libfuse3-dev, then tmemfs anew",
    )


# --- what keeps the daemon from waiting for itself -------------------------------------------


def daemon_steps(*, budget: int, overflow: bool) -> Iterator[Finding]:
    """What a daemon could do here for its safety."""
    for step in probe.steps(budget, overflow=overflow):
        lacking = Level.MISSING if step.step in probe.VITAL else Level.WARNING
        yield Finding(Level.OK if step.done else lacking, step.step, step.text)


# --- what the machine is set to --------------------------------------------------------------


def min_free() -> Finding:
    """What the kernel holds back for those who make memory free."""
    held = format_size(watermarks.held_back())
    if watermarks.held_back() >= watermarks.wanted():
        return Finding(Level.OK, watermarks.MIN_FREE, f"the kernel holds {held} back")
    return Finding(
        Level.WARNING,
        watermarks.MIN_FREE,
        f"the kernel holds back {held}; for a machine that runs out of memory as a whole, "
        f"{watermarks.more_behind()}",
    )


def watermark_boost() -> Finding:
    """Whether the kernel may suddenly hold back so much that a loop device's worker waits."""
    topic = "watermark_boost"
    if not watermarks.boosted():
        return Finding(Level.OK, topic, "is off")
    if not watermarks.may_stop():
        return Finding(Level.OK, topic, f"is on; {watermarks.MIN_FREE} is large enough for it")
    return Finding(
        Level.MISSING,
        topic,
        "is on: small guests that ran out of memory as a whole stopped in 3 of 9 trials, and in "
        "none of 15 with no boost; "
        f"{watermarks.less_boost()} or {watermarks.more_behind()}",
    )


def zswap() -> Finding:
    """Whether pages are compressed twice."""
    if _read("/sys/module/zswap/parameters/enabled") == "Y":
        return Finding(
            Level.WARNING,
            "zswap",
            "is on, and keeps pages compressed in front of every swap device; "
            "'echo N > /sys/module/zswap/parameters/enabled'",
        )
    return Finding(Level.OK, "zswap", "is off")


def other_swap() -> Finding:
    """What the kernel may use before, or instead."""
    ours = {swap.device for swap in _swaps_on_volumes()}
    others = [swap for swap in loops.swap_devices().values() if swap.device not in ours]
    if not others:
        return Finding(Level.OK, "other swap", "there is none")
    names = ", ".join(f"{swap.device} (priority {swap.priority})" for swap in others)
    return Finding(
        Level.WARNING,
        "other swap",
        f"{names}; the highest priority is used first, see 'tmemfs swapon --priority'",
    )


def _swaps_on_volumes() -> Iterator[SwapDevice]:
    devices = {mount.device for mount in system.tmemfs_mounts()}
    for loop in loops.attached():
        # One on a mount that is out of sight is known by its path only.
        if any(map(loop.is_on, devices)) or f"/{VOLUMES}/" in loop.path:
            yield from loops.swaps_on(loop)


def swap_volumes() -> Iterator[Finding]:
    """Whether the budgets of the mounts that are there hold what their volumes promise."""
    for mount in visible_mounts():
        with suppress(TmemfsError):  # 'tmemfs status' says what is the matter with it
            if line := broken_promise(read_figures(mount)):
                yield Finding(Level.WARNING, "swap volumes", f"{mount.mountpoint}: {line}")


def hibernation() -> Finding:
    """A machine that hibernates writes its memory to swap; ours is memory."""
    words = _read("/proc/cmdline").split()
    device = next((word for word in words if word.startswith("resume=")), "")
    if device and "noresume" not in words:
        return Finding(
            Level.WARNING,
            "hibernation",
            f"is set up ({device}); it needs a swap device on disk, of a higher priority",
        )
    return Finding(Level.OK, "hibernation", "is not set up; it cannot work on a swap volume")


def overcommit() -> Finding:
    """Whether the kernel promises more memory than there is."""
    if _read("/proc/sys/vm/overcommit_memory") == "2":
        return Finding(
            Level.WARNING,
            "overcommit",
            "is forbidden (vm.overcommit_memory=2): swapoff may be refused, and the size of a "
            "volume counts as memory that can be promised",
        )
    return Finding(Level.OK, "overcommit", "is permitted")


def memory_cgroup() -> Finding:
    """Whether this very process, and so a daemon that it starts, may run into a limit."""
    topic = "memory limit"
    limit = system.usable_memory()
    if limit < system.physical_memory():
        return Finding(
            Level.WARNING,
            topic,
            f"programs started here share {format_size(limit)}, and a daemon would, too; "
            "start it outside, as a service",
        )
    return Finding(Level.OK, topic, "no cgroup limits the memory of what is started here")


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""
