"""The process that serves a mount: builds the rooms from the bottom up, serves, ends in order."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

import trio

from tmemfs import dump
from tmemfs.config import MountConfig
from tmemfs.errors import MountFailure
from tmemfs.fuse import pyfuse3, rawrequests, session
from tmemfs.fuse.attributes import Timeouts
from tmemfs.fuse.control import Control
from tmemfs.fuse.operations import Operations
from tmemfs.linux import credentials, inherited, system
from tmemfs.linux.notify import notify
from tmemfs.mount import Mount, build
from tmemfs.supervise import keep
from tmemfs.swap import hardening
from tmemfs.swap.volumes import SwapVolumes

log = logging.getLogger(__name__)

# A terminal that closes is no reason to leave a stale mount.
_ENDINGS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

# A thread that lists a large directory, say, gives way (s) to the one that serves requests.
_SWITCH = 0.00005
# Descriptors for control, figures, swap volumes and their overflow.
_OWN_DESCRIPTORS = 32
# A thread only makes system calls; by default each would map 8 MiB.
_STACK = 512 << 10
# Seconds for what is under way when a signal ends the mount; writes are awaited for longer.
_END_TIMEOUT_S = 5
# The kernel may read so far ahead on the mount: in one request, the largest there is.
_KERNEL_READAHEAD = 1 << 20


def run(config: MountConfig, on_ready: Callable[[], None]) -> None:
    """Mount what *config* says and serve it until it is unmounted, or SIGTERM or SIGINT comes.

    While a swap volume of the mount is in use, signals are refused: what is in it would be lost.

    *on_ready* is called from this process once the mount answers. Raises a TmemfsError, or an
    OSError of the source directory, when it cannot be mounted.
    """
    # What is created gets the mode that the kernel sends, which has the caller's umask in it.
    os.umask(0)
    for line in inherited.lift_limits():
        log.warning("%s", line)
    threading.stack_size(_STACK)
    sys.setswitchinterval(_SWITCH)
    # Before the mount, which may be over the source itself.
    root = os.open(config.source, os.O_RDONLY | os.O_DIRECTORY)
    # Half of them for inodes, half for open files. The rest is for calls that are under way.
    descriptors = (inherited.lift_descriptors() - _OWN_DESCRIPTORS) * 2 // 5
    mount = build(config, root, descriptors)
    operations = Operations(
        mount, Control(mount), Timeouts(config.attr_timeout, config.entry_timeout)
    )
    try:
        _serve(operations, config, mount, on_ready)
    finally:
        mount.close()


def _serve(
    operations: Operations,
    config: MountConfig,
    mount: Mount,
    on_ready: Callable[[], None],
) -> None:
    options = set(pyfuse3.default_options) | set(config.fuse_options)
    if config.debug:
        options.add("debug")
    # What is there by now stays to the end: the garbage collector need not look at it again.
    gc.freeze()
    # Held back until somebody listens: a signal in between would leave a stale mount.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDINGS)
    session.bound(_bounds(config))
    try:
        pyfuse3.init(operations, config.mountpoint, options)
    except RuntimeError as error:
        raise MountFailure(f"{config.mountpoint}: cannot mount: {error}") from error
    rawrequests.serve(operations)
    if config.swaps and not session.active():
        log.warning("no discard: %s; what is freed stays in swap volumes", session.why_not())
    if mount.steps:
        session.touch_stack(hardening.STACK)
    mount.discards = session.active()
    hardening.finish(mount.steps, "" if mount.discards else session.why_not())
    credentials.give_up()
    # Its threads have what this one has, from now on.
    settle, touch = mount.cache.settle, bool(config.swaps)
    mount.use(session.lane(mount.core.storage, _bounds(config), settle, touch=touch))
    ready = False

    def announce() -> None:
        nonlocal ready
        on_ready()
        ready = True

    in_order = False
    dump.on_signal()
    try:
        trio.run(_main, config, mount, announce)
        in_order = True
    finally:
        if mount.lane is not None:
            session.detach(mount.lane)
        # A mount that others use already and that ends unasked stays, and answers ENOTCONN: an
        # empty directory in its place would be taken for the files that were there.
        pyfuse3.close(unmount=in_order or not ready)
        for number in _ENDINGS:
            # The interpreter has no handlers any more while it ends.
            signal.signal(number, signal.SIG_IGN)


async def _main(config: MountConfig, mount: Mount, on_ready: Callable[[], None]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep, mount.run)
        nursery.start_soon(keep, _follow, mount)
        nursery.start_soon(_announce, config, on_ready)
        nursery.start_soon(keep, _end_on_signal, config, mount.swaps, nursery)
        await session.serve(_bounds(config), mount.lane)
        nursery.cancel_scope.cancel()


async def _follow(mount: Mount) -> None:
    """Let what the lane notes be heard."""
    if mount.lane is not None:
        async for note in mount.lane.notes():
            mount.cache.granter.noted(*note)


def _bounds(config: MountConfig) -> session.Bounds:
    return session.FOR_SWAP if config.swap_only else session.FOR_FILES


async def _announce(config: MountConfig, on_ready: Callable[[], None]) -> None:
    # In a thread, because it is this one that has to answer.
    await trio.to_thread.run_sync(os.statvfs, config.mountpoint, abandon_on_cancel=True)
    mount = system.mount_at(config.mountpoint)
    if config.readahead and mount is not None:
        system.raise_readahead(mount, _KERNEL_READAHEAD)
    if config.foreground:
        notify("READY=1", f"STATUS=serving {config.mountpoint}")
    on_ready()


async def _end_on_signal(config: MountConfig, swaps: SwapVolumes, nursery: trio.Nursery) -> None:
    # Whoever started us so that a closed terminal does not matter (nohup) is obeyed.
    endings = [number for number in _ENDINGS if signal.getsignal(number) != signal.SIG_IGN]
    for ending in endings:
        # What holds again when nobody listens any more: one more must not cut the end short.
        signal.signal(ending, _heard)
    with trio.open_signal_receiver(*endings) as signals:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDINGS)
        async for number in signals:
            name = signal.Signals(number).name
            if in_use := ", ".join(await swaps.in_use()):
                log.warning("%s refused: swap volume %s is in use; swapoff first", name, in_use)
                if config.foreground:
                    notify(f"STATUS={name} refused: swap volume {in_use} is in use")
                continue
            log.info("ending on %s", name)
            if config.foreground:
                notify("STOPPING=1")
            session.terminate()
            nursery.start_soon(_leave, config, nursery)


def _heard(number: int, frame: FrameType | None) -> None:
    """Take note of a signal while the end is under way already."""


async def _leave(config: MountConfig, nursery: trio.Nursery) -> None:
    """Leave behind who still waits: the mount must not stay because one file never answers."""
    await trio.sleep(_END_TIMEOUT_S)
    log.warning("%s: a call does not return; ending without it", config.source)
    nursery.cancel_scope.cancel()
