"""Swap on a file of a tmemfs mount, through a loop device: what `losetup`, `mkswap`, `swapon` do.

    with swap_on(Path("/mnt/.tmemfs/swap/swap0")) as device:
        ...

Needs root. `detach` undoes it for whoever did it, a program that was killed included.
"""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

COMMAND_SECONDS = 120
DETACHED_SECONDS = 10


def run(*command: str | Path) -> str:
    """Run a command to its end; return its output. Raises OSError with what it said on failure.

    A session of its own keeps the terminal's Ctrl-C away from it.
    """
    done = subprocess.run(
        command,
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        start_new_session=True,
        timeout=COMMAND_SECONDS,
    )
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
        raise OSError(f"{' '.join(map(str, command))}: {said}")
    return done.stdout.strip()


@contextmanager
def swap_on(file: Path) -> Iterator[str]:
    """Swap on *file* for as long as the context lasts; yields the loop device.

    Direct I/O, or the kernel would keep a second copy of every page. Discard tells tmemfs which
    pages the kernel does not need any more; where it is not to be had, to ask for it does no harm.
    """
    try:
        device = run("losetup", "--find", "--show", "--direct-io=on", file)
        run("mkswap", device)
        run("swapon", "--discard", device)
        yield device
    finally:
        detach(file)


def detach(place: Path) -> None:
    """Take away all swap and all loop devices on *place*, a file or all files of a mount.

    It looks at what is there, so that it undoes a half as well as a whole. Waits until the
    devices are gone: the kernel detaches them in its own time.
    """
    deadline = time.monotonic() + DETACHED_SECONDS
    for device in loop_devices(place):
        if used_swap(device) is not None:
            run("swapoff", device)
            # What was swapped out is nobody's any more: punched out where that is offered, else
            # overwritten with zeros, which take no memory. A nicety that must not stop the
            # detaching, where the daemon is dead.
            with suppress(OSError):
                run("blkdiscard", "--zeroout", device)
        run("losetup", "--detach", device)
    while loop_devices(place):
        if time.monotonic() > deadline:
            raise OSError(f"{place}: {', '.join(loop_devices(place))} cannot be detached")
        time.sleep(0.05)


def loop_devices(place: Path) -> list[str]:
    """The loop devices on the file *place*, or on the files below it."""
    devices = []
    for backing_file in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            file = Path(backing_file.read_text().strip())
        except OSError:  # detached in between
            continue
        if file == place or place in file.parents:
            devices.append(f"/dev/{backing_file.parts[3]}")
    return devices


def used_swap(device: str) -> int | None:
    """Bytes that are swapped out to *device*; None where it is no swap device."""
    for line in Path("/proc/swaps").read_text().splitlines()[1:]:
        name, _, _, used, *_ = line.split()
        if name == device:
            return int(used) << 10
    return None
