"""The systemd units for a swap volume: one for the daemon, one for the swap on it.

They are the same lines for a template (`examples/systemd`) and for a command line, which
`tmemfs swapon --print-units` fills in.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from dataclasses import dataclass

from tmemfs.cli.system import swapvolume
from tmemfs.config import MountConfig

DAEMON = "tmemfs-swap"
SWAPON = "tmemfs-swapon"
DIRECTORY = "/etc/systemd/system"
CONFIGURATION = "/etc/tmemfs"


@dataclass(frozen=True, slots=True)
class Filling:
    """What differs from one volume to another: words for the two command lines, ready to use."""

    program: str
    name: str
    daemon: str  # the name of the daemon's unit
    mount_words: str
    swapon_words: str = ""
    settings: str = ""  # a line of [Service], where the words need it
    needs: str = ""  # a path that has to be mounted before


def daemon_unit(filling: Filling) -> str:
    """The unit of the daemon, which has the mount and the memory."""
    place = f"{swapvolume.PRIVATE}/{filling.name}"
    return f"""\
# The daemon of the swap volume {filling.name}: its mount, and the memory of its pages.
[Unit]
Description=tmemfs swap volume {filling.name}
DefaultDependencies=no
RequiresMountsFor={" ".join(filter(None, [swapvolume.PRIVATE, filling.needs]))}
After=systemd-modules-load.service
Wants=modprobe@fuse.service modprobe@loop.service
After=modprobe@fuse.service modprobe@loop.service
# Services of the usual kind stop long before umount.target does, and need their memory till then.
Conflicts=umount.target
Before=umount.target

[Service]
Type=notify
{filling.settings}ExecStartPre=-/bin/mkdir -p -m 0700 {place}
ExecStart={filling.program} mount -f -o swap_only {place} {place} {filling.mount_words}
ExecStopPost=-/bin/rmdir {place}
# Its end is the end of every process that has pages here.
OOMScoreAdjust=-1000
OOMPolicy=continue
MemorySwapMax=0
LimitMEMLOCK=infinity
LimitNOFILE=65536
# It refuses to end while swap is on. It is asked when the unit of the swap has been stopped. Where
# that could not swap off, killing it would lose pages, and waiting for ever keep the machine up.
SendSIGKILL=no
TimeoutStartSec=infinity
TimeoutStopSec=90
"""


def swapon_unit(filling: Filling) -> str:
    """The unit that turns the swap on, and off again for as long as that takes."""
    place = f"{swapvolume.PRIVATE}/{filling.name}"
    words = " ".join(filter(None, [filling.name, f"--mountpoint {place}", filling.swapon_words]))
    return f"""\
# Swap on the volume {filling.name}. This is the unit to enable, start and stop.
[Unit]
Description=Swap on the tmemfs volume {filling.name}
DefaultDependencies=no
BindsTo={filling.daemon}
After={filling.daemon}
# As every swap unit: what starts after it may swap, and has ended when it stops.
Before=swap.target
Conflicts=umount.target
Before=umount.target

[Service]
Type=oneshot
RemainAfterExit=yes
{filling.settings}ExecStart={filling.program} swapon {words}
# With --force it also clears away what is left when the daemon was killed.
ExecStop={filling.program} swapoff {filling.name} --mountpoint {place} --force
# Reading everything back takes as long as it takes; half of it is worth nothing.
TimeoutStopSec=infinity

[Install]
WantedBy=swap.target
"""


def template(program: str) -> Filling:
    """Units for any volume, which read its size and budget from a file."""
    return Filling(
        program=program,
        name="%i",
        daemon=f"{DAEMON}@%i.service",
        settings=f"EnvironmentFile={CONFIGURATION}/%i.conf\n",
        mount_words="--swap %i=${SIZE} --budget ${BUDGET} $MOUNT_OPTIONS",
        swapon_words="$SWAPON_OPTIONS",
    )


def filled_in(config: MountConfig, arguments: argparse.Namespace) -> str:
    """The two units for the command line of `tmemfs swapon`, each after the path it belongs to."""
    (spec,) = config.swaps
    words = ["--swap", f"{spec.name}={spec.size}", "--budget", str(config.budget)]
    if config.reserve is not None:
        words += ["--reserve", str(config.reserve)]
    if spec.overflow is not None:
        words += ["--overflow", f"{spec.name}={spec.overflow}"]
    more = [] if arguments.priority is None else ["--priority", str(arguments.priority)]
    if arguments.discard:
        policy = "" if arguments.discard == "both" else f"={arguments.discard}"
        more.append(f"--discard{policy}")
    if arguments.no_discard:
        more.append("--no-discard")
    daemon = f"{DAEMON}-{spec.name}.service"
    filling = Filling(
        program=_quoted(program()),
        name=spec.name,
        daemon=daemon,
        mount_words=" ".join(map(_quoted, words)),
        swapon_words=" ".join(more),
        needs=_quoted(os.path.dirname(spec.overflow)) if spec.overflow else "",
    )
    swapon = f"{SWAPON}-{spec.name}.service"
    return (
        f"# {DIRECTORY}/{daemon}\n{daemon_unit(filling)}\n"
        f"# {DIRECTORY}/{swapon}\n{swapon_unit(filling)}"
    )


def program() -> str:
    """The path of this command, as systemd wants it: absolute."""
    own = os.path.abspath(sys.argv[0])
    if os.path.basename(own) == "tmemfs" and os.path.isfile(own) and os.access(own, os.X_OK):
        return own
    return shutil.which("tmemfs") or "/usr/local/bin/tmemfs"


def _quoted(word: str) -> str:
    """`word` as a unit means it literally: systemd.unit(5) on specifiers, systemd.service(5)."""
    word = word.replace("\\", "\\\\").replace("%", "%%").replace("$", "$$")
    if any(char in word for char in " \t\"'"):
        return '"' + word.replace('"', '\\"') + '"'
    return word
