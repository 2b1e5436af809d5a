"""`tmemfs swapon`: a mount, a loop device, a swap header and swapon, or none of it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from tmemfs import config as options
from tmemfs.cli.figures import find_mount, lacking_steps, read_figures, volumes_of
from tmemfs.cli.interrupts import undoing
from tmemfs.cli.parser import Parser
from tmemfs.cli.promise import broken_promise
from tmemfs.cli.system import preflight, swaptools, swapvolume, systemd, watermarks
from tmemfs.cli.system.swapvolume import Volume
from tmemfs.cli.system.turnon import Steps, complain
from tmemfs.config import MountConfig
from tmemfs.errors import SwapFailure, SystemFailure, TmemfsError, UsageError
from tmemfs.linux import loops, system
from tmemfs.linux.loops import Loop
from tmemfs.units import format_size, parse_size

LOOP_CONTROL = loops.LOOP_CONTROL
HIGHEST_PRIORITY = 32767
DISCARDS = ("once", "pages")

_EPILOG = f"""\
The volume has a mount of its own, {swapvolume.PRIVATE}/NAME, whose daemon is started, unless
--mountpoint names a mount that offers it. On its file there is a loop device with direct I/O, and
that is swap. Its name is printed. Where a step fails, or at Ctrl-C, all steps are undone.

'tmemfs swapoff NAME' takes it back, 'tmemfs status' shows it, and 'tmemfs check' says what this
machine lacks for it. Without --overflow, a full budget makes the kernel keep its pages in memory;
where pages that do not compress could fill it, that is said, with a size that would fit.

The daemon holds the memory of its whole budget from the start, which is what makes it safe where
the whole machine may run out, and about 80M beside it (24M more with --overflow).

sizes:
  4096, 512M, 1.5G (binary units), or 25% of the memory (the machine's, or the cgroup's limit)

exit codes:
  0  it is on
  1  not permitted
  2  wrong usage, or the machine lacks something that it takes
  8  interrupted
 32  a step failed
"""


class _SwaponParser(Parser):
    """A Parser that takes `--discard NAME` as swapon(8) does: a policy comes after an `=`."""

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        return super().parse(["--discard=both" if word == "--discard" else word for word in argv])


def parser() -> Parser:
    """The command line of the command."""
    made = _SwaponParser(
        "tmemfs swapon",
        "Make compressed memory swap: the volume NAME of the size that the kernel is to see.",
        _EPILOG,
    )
    made.add_argument("name", metavar="NAME", help="what the volume is called")
    made.add_argument("--size", metavar="SIZE", help="how much can be swapped out to it")
    made.add_argument(
        "--budget",
        metavar="SIZE",
        help="the memory that its pages may take, compressed; default 1G, or 25%% of the physical "
        "memory where that is less",
    )
    made.add_argument(
        "--reserve",
        metavar="SIZE",
        help="hold only so much of the budget from the start; enough where all that swaps is in "
        "memory cgroups",
    )
    made.add_argument(
        "--overflow",
        metavar="FILE",
        help="the file or block device that takes what the budget does not hold; a file is made "
        "and allocated in full",
    )
    made.add_argument(
        "-p",
        "--priority",
        metavar="PRIORITY",
        type=int,
        help="as of swapon(8), 0 to 32767: what is higher is used first; by default the kernel "
        "gives one that is lower than all others",
    )
    made.add_argument(
        "--discard",
        metavar="POLICY",
        help="as of swapon(8), where the loop device has discard: --discard=once, =pages, or both, "
        "which is the default",
    )
    made.add_argument(
        "--no-discard",
        action="store_true",
        help="keep what the kernel has freed until it is written again",
    )
    made.add_argument(
        "--mountpoint", metavar="DIR", help="use the volume NAME of the tmemfs mount at DIR"
    )
    made.add_argument(
        "--print-units",
        action="store_true",
        help="print the two systemd units that do it at boot, and change nothing",
    )
    made.add_argument("-v", "--verbose", action="store_true", help="say each step")
    return made


def run(arguments: argparse.Namespace) -> int:
    """Turn the swap on and print its device."""
    _check_words(arguments)
    if arguments.print_units:
        print(systemd.filled_in(configuration(arguments), arguments), end="")
        return 0
    swapvolume.check_root()
    config = None if arguments.mountpoint else configuration(arguments)
    volume = (
        swapvolume.at(arguments.name, arguments.mountpoint)
        if config is None
        else Volume.of_its_own(arguments.name)
    )
    # What is found out before anything is changed must hold until it is.
    with volume.locked():
        loop = _turn_on(arguments, volume, config)
    warn(volume)
    print(loop.device)
    return 0


def _turn_on(arguments: argparse.Namespace, volume: Volume, config: MountConfig | None) -> Loop:
    if config is None:
        _check_offered(arguments, volume)
    _check_machine(volume)
    steps = Steps(arguments)
    with undoing() as undo:
        if config is not None:
            steps.mount(undo, volume, config)
        loop = steps.attach(undo, volume)
        steps.swap_on(undo, loop)
        undo.pop_all()
    return loop


# --- what is looked at before anything is changed --------------------------------------------


def _check_words(arguments: argparse.Namespace) -> None:
    """What can be said of the command line alone. Raises UsageError."""
    policy, priority = arguments.discard, arguments.priority
    if policy not in (None, "both", *DISCARDS):
        raise UsageError.unknown("discard policy", policy, DISCARDS)
    if policy and arguments.no_discard:
        raise UsageError("--discard and --no-discard exclude each other")
    if priority is not None and not 0 <= priority <= HIGHEST_PRIORITY:
        raise UsageError(f"--priority: {priority} is not 0 to {HIGHEST_PRIORITY}")
    if arguments.mountpoint and arguments.budget:
        raise UsageError(
            "--budget: that of a mount that is there is changed by writing to its .tmemfs/budget"
        )
    if arguments.mountpoint and arguments.reserve:
        raise UsageError("--reserve: a mount that is there has taken its own; omit the option")
    if arguments.mountpoint and arguments.print_units:
        raise UsageError("--print-units: the units make a mount of their own; omit --mountpoint")
    if not (arguments.mountpoint or arguments.size):
        raise UsageError(f"--size is missing, as in 'tmemfs swapon {arguments.name} --size 4G'")


def configuration(arguments: argparse.Namespace) -> MountConfig:
    """The private mount that the command line asks for. Raises UsageError."""
    name = arguments.name
    words = [f"swap={name}={arguments.size}", "swap_only"]
    if arguments.budget:
        words.append(f"budget={arguments.budget}")
    if arguments.reserve:
        words.append(f"reserve={arguments.reserve}")
    if arguments.overflow:
        words.append(f"overflow={name}={os.path.abspath(arguments.overflow)}")
    place = Volume.of_its_own(name).mountpoint
    return options.parse_mount(place, place, words, as_root=True)


def _check_offered(arguments: argparse.Namespace, volume: Volume) -> None:
    """Whether a mount that is there already has the volume, as it was asked for."""
    name, where = arguments.name, arguments.mountpoint
    volumes = volumes_of(read_figures(find_mount(volume.mountpoint)))
    if name not in volumes:
        raise UsageError.unknown(f"swap volume of {where}", name, volumes)
    size, overflow = (volumes[name].get(key) for key in ("size", "overflow"))
    if arguments.size and size is not None and parse_size(arguments.size) != size:
        raise UsageError(f"--size: {name} of {where} has {format_size(size)}; omit the option")
    if arguments.overflow and os.path.abspath(arguments.overflow) != overflow:
        raise UsageError(
            f"--overflow: {name} of {where} has {overflow or 'none'}; give it to 'tmemfs mount'"
        )


def _check_machine(volume: Volume) -> None:
    """Whether this machine can do it at all, and has not done so already."""
    for tool in swaptools.TOOLS:
        swaptools.find(tool)
    preflight.check_device()
    try:
        os.close(os.open(LOOP_CONTROL, os.O_RDWR | os.O_CLOEXEC))
    except OSError as exc:
        raise SystemFailure(
            f"{LOOP_CONTROL}: there are no loop devices here ({exc.strerror}); try 'modprobe loop'"
        ) from None
    for loop in volume.loops():
        use = "is on already" if loops.swaps_on(loop) else "has a loop device already"
        raise SwapFailure(f"{volume.name}: {use}: {loop.device}")
    if volume.private and volume.mount is None:
        swapvolume.refuse_elsewhere(volume.name)
    elif volume.private:
        if system.probe(volume.mountpoint) is not system.MountState.STALE:
            raise SwapFailure(
                f"{volume.name}: {volume.mountpoint} is mounted already; "
                f"'tmemfs swapoff {volume.name}' takes it away"
            )
        preflight.free_mountpoint(volume.mountpoint)


def warn(volume: Volume) -> None:
    """Name what is not in place for the safety of the machine."""
    try:
        figures = read_figures(find_mount(volume.mountpoint))
    except TmemfsError as exc:
        complain(str(exc))
        return
    for step in lacking_steps(figures):
        complain(f"{volume.name}: {step['text']}")
    how = "; use --size {size}, or --overflow FILE" if volume.private else ""
    if line := broken_promise(figures, how):
        complain(f"{volume.name}: {line}")
    if watermarks.may_stop():
        complain(
            f"{volume.name}: swap may stop a machine that runs out of memory as a whole: "
            f"{watermarks.less_boost()} or {watermarks.more_behind()}"
        )
