"""`tmemfs mount`, and `tmemfs SOURCE MOUNTPOINT -o ...` as mount(8) calls it."""

from __future__ import annotations

import argparse
import os
from contextlib import suppress

from tmemfs import config as options
from tmemfs.cli import background, logs
from tmemfs.cli.parser import BY_MOUNT_HELPER, Parser
from tmemfs.cli.system import locks, preflight
from tmemfs.config import MountConfig
from tmemfs.linux import system

_EPILOG = f"""\
sizes:
  4096, 512M, 1.5G (binary units), or 25% of the memory (the machine's, or the cgroup's limit)

mount options (-o), also in fstab:
  budget=SIZE         as --budget
  reserve=SIZE        as --reserve
  page_size=SIZE      as --page-size
  swap=NAME=SIZE      as --swap, once for each volume
  overflow=NAME=FILE  as --overflow, once for each volume; an absolute path
  swap_only           for a mount of which only the swap volumes are used: few requests are served
                      at once, so that they take little memory, all of it taken at the start
  realtime            with swap volumes: serve under SCHED_RR; better where processors are
                      always busy, slower where they are not
  cache=none          every read is checked against SOURCE, and the kernel keeps no pages: nothing
                      stale is ever read, each read asks SOURCE, shared mmap does not work
  cache=open          a file is checked when it is opened, and where it ends (the default): who
                      holds a file open may read what it was
  cache=always        files are never checked, names only once a day: for what nobody changes
                      behind the mount; else old bytes are read until 'tmemfs drop'
  writeback           the kernel collects writes and makes them when it likes: small writes are
                      fast; what is not synced is lost with the machine or the daemon, and nobody
                      else may change SOURCE meanwhile
  readahead=SIZE      read up to so much ahead of who reads in order; default 4M, 0 for nothing
  log=WHERE           as --log; a file by its absolute path
  trace=FILE          note every read in FILE (absolute): number of the file, page, count
  native=off          keep and read pages in Python alone, slower: to find out whether a fault is
                      in the part in C; default on, where that could be built
  attr_timeout=SECONDS, entry_timeout=SECONDS
                      how long attributes and names may be believed; default 1
  ro rw suid nosuid dev nodev exec noexec sync async atime noatime
                      as in mount(8), but that nosuid and nodev hold unless 'suid' and 'dev' are
                      given; a restriction of the mount that SOURCE is on always holds. Access
                      times are those of SOURCE; with noatime, reads here do not move them
  allow_suid allow_dev
                      as suid and dev, in fstab: mount(8) does not pass those two on
  allow_other         others than you may use the mount; always so as root
  allow_root          root may use the mount, others not
  auto_unmount        libfuse tries to take the mount away when its daemon is killed
  fsname=NAME         what is shown as the source of the mount; default SOURCE
  context= fscontext= defcontext= rootcontext=
                      as in mount(8), for SELinux
  Options that only mean something to mount(8) and systemd (noauto, user, x-*, ...) are accepted.

the line in fstab (mount(8) looks for the command in /usr/local/bin, /usr/bin and the like only):
  SOURCE MOUNTPOINT {system.FSTYPE} budget=1G,swap=swap0=4G 0 0
and where the command is in a virtual environment:
  /path/to/tmemfs#SOURCE MOUNTPOINT fuse budget=1G 0 0
"""


def parser() -> Parser:
    """The command line of the command."""
    made = Parser(
        "tmemfs mount",
        "Show the directory SOURCE at MOUNTPOINT through a compressed cache in memory, and offer\n"
        "swap files in MOUNTPOINT/.tmemfs/swap. Returns when the mount answers.",
        _EPILOG,
    )
    made.add_argument("source", metavar="SOURCE", help="the directory to show")
    made.add_argument(
        "mountpoint", metavar="MOUNTPOINT", help="where to show it; may be SOURCE itself"
    )
    made.add_argument(
        "--budget",
        metavar="SIZE",
        help="the memory that all pages together may take; default 1G, or 25%% of the physical "
        "memory where that is less",
    )
    made.add_argument(
        "--reserve",
        metavar="SIZE",
        help="so much of the budget is taken from the system at the start and kept; default all of "
        "it where there are swap files, which is what makes them safe",
    )
    made.add_argument(
        "--page-size",
        metavar="SIZE",
        help=f"the unit of caching, 4K to 64K; default {options.DEFAULT_PAGE_SIZE >> 10}K",
    )
    made.add_argument(
        "--swap",
        metavar="NAME=SIZE",
        action="append",
        default=[],
        help="offer a swap file of this name and size; may be given several times",
    )
    made.add_argument(
        "--overflow",
        metavar="NAME=FILE",
        action="append",
        default=[],
        help="the file or block device that takes what the budget does not hold of the swap file "
        "NAME; a file is made and allocated in full; may be given once for each swap file",
    )
    made.add_argument(
        "-o",
        dest="options",
        metavar="OPTION[,OPTION...]",
        action="append",
        default=[],
        help="mount options, see below; the long options come after them and win",
    )
    made.add_argument(
        "--log",
        metavar="WHERE",
        help="where the daemon logs: stderr (the default in the foreground), syslog (the default "
        "in the background), or a file",
    )
    made.add_argument("-f", "--foreground", action="store_true", help="serve in the foreground")
    made.add_argument(
        "-d", "--debug", action="store_true", help="serve in the foreground, with a detailed log"
    )
    made.add_argument("-r", "--read-only", action="store_true", help="the same as -o ro")
    made.add_argument("-w", "--read-write", action="store_true", help="the same as -o rw")
    made.add_argument("-s", dest="sloppy", action="store_true", help="ignore unknown options")
    made.add_argument("-v", "--verbose", action="store_true", help="say what was mounted")
    made.add_argument(
        "-n", dest="no_mtab", action="store_true", help="ignored, as mount(8) sets it"
    )
    made.add_argument(
        BY_MOUNT_HELPER, dest="by_helper", action="store_true", help=argparse.SUPPRESS
    )
    return made


def run(arguments: argparse.Namespace) -> int:
    """Mount, and return when the mount answers, or with -f when it has ended."""
    asked = configuration(arguments)
    # Until the mount is there for others to see.
    with locks.locked(asked.mountpoint) as lock:
        config = preflight.check(asked)
        if config.foreground:

            def ready() -> None:
                lock.release()
                with suppress(OSError):  # nobody reads it; the mount is there all the same
                    _announce(config, arguments.verbose)

            logs.start(config.log, foreground=True, debug=config.debug)
            background.serve(config, ready)
            return 0
        background.start(lambda ready: background.serve(config, ready), config.log)
    _announce(config, arguments.verbose)
    return 0


def configuration(arguments: argparse.Namespace) -> MountConfig:
    """What the command line asks for. Raises UsageError."""
    words = [word for text in arguments.options for word in options.split_options(text)]
    if arguments.by_helper:
        words = options.without_added(words)
    for flag, word in (("read_only", "ro"), ("read_write", "rw")):
        if getattr(arguments, flag):
            words.append(word)
    long_options = {
        "budget": [arguments.budget] if arguments.budget else [],
        "reserve": [arguments.reserve] if arguments.reserve else [],
        "page_size": [arguments.page_size] if arguments.page_size else [],
        "log": [_log(arguments.log)] if arguments.log else [],
        "swap": arguments.swap,
        "overflow": map(_absolute, arguments.overflow),
    }
    words += [f"{key}={value}" for key, values in long_options.items() for value in values]
    return options.parse_mount(
        system.canonical_path(arguments.source),
        system.canonical_path(arguments.mountpoint),
        words,
        as_root=preflight.is_root(),
        sloppy=arguments.sloppy,
        foreground=arguments.foreground or arguments.debug,
        debug=arguments.debug,
    )


def _log(where: str) -> str:
    return where if where in options.LOGS else os.path.abspath(where)


def _absolute(overflow: str) -> str:
    """`NAME=FILE` with the file where it is, not where the daemon would look."""
    name, file = options.split_overflow(overflow)
    return f"{name}={os.path.abspath(file)}"


def _announce(config: MountConfig, verbose: bool) -> None:
    if verbose:
        print(f"tmemfs: {config.source} mounted on {config.mountpoint}", flush=True)
