"""losetup, mkswap, swapon, swapoff: each step of making swap of a file, and what takes it back.

The programs are those of util-linux. Whatever they say when they fail becomes one line.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import time
from contextlib import suppress

from tmemfs.errors import SwapFailure, SystemFailure
from tmemfs.linux import loops
from tmemfs.linux.loops import Loop

TOOLS = ("losetup", "mkswap", "swapon", "swapoff")
DETACH_SECONDS = 10.0  # the kernel detaches a device in its own time
LABEL_BYTES = 15  # what a swap header has room for, with the zero at its end

_TOOL_SECONDS = 120.0
_SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"  # where root's tools are if PATH does not say


def find(tool: str) -> str:
    """The path of a program. Raises SystemFailure where it is not installed."""
    path = f"{os.environ.get('PATH', '')}:{_SYSTEM_PATH}"
    found = shutil.which(tool, path=path)
    if found is None:
        raise SystemFailure(f"{tool} is not installed; it is part of util-linux")
    return found


def run(tool: str, *arguments: str, seconds: float = _TOOL_SECONDS) -> str:
    """Run a program to its end; its output. Raises SwapFailure with its own words.

    It has a session of its own, or the Ctrl-C that is to undo everything would end it half-way.
    """
    what = arguments[-1]
    child = subprocess.Popen(
        [find(tool), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=environment(),
    )
    try:
        out, err = child.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        # Not waited for: what waits for a device that does not answer cannot be ended either.
        child.kill()
        raise SwapFailure(f"{tool} {what}: was not done in {seconds:g} seconds") from None
    if child.returncode:
        raise SwapFailure(failure(tool, what, err or out, child.returncode))
    return os.fsdecode(out).strip()


def environment() -> dict[str, str]:
    """What a program gets: what it says may be looked at, and is in English as all our lines."""
    return os.environ | {"LC_ALL": "C"}


def failure(tool: str, what: str, said: bytes, code: int) -> str:
    """What a program that failed has said, in one line that begins with its name."""
    lines = [line.strip() for line in os.fsdecode(said).splitlines() if line.strip()]
    if not lines:
        how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        return f"{tool} {what}: {how}"
    text = "; ".join(lines)
    return text if text.startswith(tool) else f"{tool} {what}: {text}"


def attach(file: str) -> Loop:
    """A loop device on `file`, with direct I/O. Raises SwapFailure, and then there is none."""
    try:
        device = run("losetup", "--find", "--show", "--direct-io=on", file)
    except SwapFailure as exc:
        if os.strerror(errno.ETXTBSY) not in str(exc):
            raise
        raise SwapFailure(f"{file}: is in use already, somebody has it open for writing") from None
    loop = next((loop for loop in loops.attached() if loop.device == device), None)
    if loop is None:
        raise SwapFailure(f"{device}: was taken away from {file} at once by somebody else")
    if not loop.dio:
        detach(loop)
        raise SwapFailure(
            f"{device}: the kernel gives no direct I/O on {file}, "
            "and without it would keep a second copy of every page"
        )
    return loop


def detach(loop: Loop) -> None:
    """Take a loop device away from its file; returns when it is gone. Gone already is no error."""
    deadline = time.monotonic() + DETACH_SECONDS
    loops.detach(loop)
    while loops.is_attached(loop):
        if time.monotonic() > deadline:
            raise SwapFailure(f"{loop.device}: cannot be detached, something else has it open")
        time.sleep(0.02)


def make_swap(device: str, name: str) -> str:
    """Write a swap header that has the label `name`; what mkswap says."""
    return run("mkswap", "--label", name[:LABEL_BYTES], device)


def swap_on(device: str, priority: int | None, discard: str | None) -> None:
    """Use `device` as swap; `discard` is a policy of swapon(8), `both`, or None for none."""
    options = [] if priority is None else ["--priority", str(priority)]
    if discard is not None:
        options.append("--discard" if discard == "both" else f"--discard={discard}")
    run("swapon", *options, device)


def discard(loop: Loop) -> None:
    """Free what the file of `loop` holds: nobody will read it. A nicety that may fail."""
    with suppress(SwapFailure, SystemFailure):
        run("blkdiscard", *([] if loop.takes_discards() else ["--zeroout"]), loop.device)
