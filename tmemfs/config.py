"""What a mount is asked to be: typed, checked, and made from the options that people write.

Options reach us from a shell, from fstab through mount(8) and mount.fuse3, and from systemd. All
of them are `-o` lists; the long options of the command line are turned into the same words, so
that an option means one thing wherever it is written.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, cast, get_args

from tmemfs.errors import MountFailure, UsageError
from tmemfs.linux import system
from tmemfs.units import format_size, parse_size

DEFAULT_PAGE_SIZE = 8192
DEFAULT_READAHEAD = 4 << 20
LARGEST_READAHEAD = 64 << 20

CacheMode = Literal["none", "open", "always"]
"""How far what is cached is believed: it is compared with the backing file at every read, at every
open, or never."""
# How long (s) the kernel may believe names and attributes where nothing else was asked for.
_BELIEVED = {"none": 1.0, "open": 1.0, "always": 86400.0}
LOGS = ("stderr", "syslog")
"""where a daemon may log, besides a file"""
SWAP_PAGE = 4096
SMALLEST_SWAP = 64 << 10
# What the index takes for a page wherever it is (see `tmemfs.tmem.objects`): a place of eight
# bytes, and its part of a node.
TABLES_PER_PAGE = 11
LARGEST_SWAP = SWAP_PAGE << 32  # the index of a page has 32 bits

# Flags that mount(2) knows and libfuse passes on, each beside the one that takes it back.
_OPPOSITES = {
    "ro": "rw",
    "nosuid": "suid",
    "nodev": "dev",
    "noexec": "exec",
    "sync": "async",
    "noatime": "atime",
}
_FLAGS = frozenset(_OPPOSITES) | frozenset(_OPPOSITES.values())
# For fstab: mount(8) does not pass on `suid` and `dev`, which it takes for what holds anyway.
_ALLOWED = {"allow_suid": "suid", "allow_dev": "dev"}
_SWITCHES = frozenset(_ALLOWED) | frozenset({"allow_other", "allow_root", "auto_unmount"})
OWN_SWITCHES = frozenset({"realtime", "swap_only", "writeback"})
_VALUES = frozenset({"fsname", "context", "fscontext", "defcontext", "rootcontext"})
OWN_KEYS = (
    *("budget", "page_size", "swap", "overflow", "reserve"),
    *("cache", "readahead", "trace", "log", "native", "attr_timeout", "entry_timeout"),
)

# What mount(8), fstab and systemd keep for themselves, and what is so or has no meaning here:
# default_permissions and nonempty always hold, access times are those of the source.
_IGNORED_WORDS = (
    "defaults auto noauto user nouser users nousers owner noowner group nogroup nofail _netdev "
    "default_permissions nonempty relatime norelatime nostrictatime diratime nolazytime noiversion "
    "nomand silent loud"
)
# What would be shown in /proc/mounts and change nothing.
_WITHOUT_EFFECT = {
    "strictatime": "access times are those of the source: mount that with it",
    "nodiratime": "there is noatime, which is for directories as well",
    "lazytime": "times are kept by the source: mount that with it",
    "iversion": "the kernel has no such thing for FUSE",
    "mand": "Linux has no mandatory locks any more",
    "dirsync": "changes of names are made by the source: mount that with it",
}
_IGNORED = frozenset(_IGNORED_WORDS.split())
_IGNORED_PREFIXES = ("x-", "X-", "comment=", "user=", "helper=", "uhelper=")
_OWN = OWN_SWITCHES | frozenset(OWN_KEYS)
_CHOICES = {"cache": get_args(CacheMode), "log": LOGS, "native": ("on", "off")}
_KNOWN = _FLAGS | _SWITCHES | _VALUES | _IGNORED | _OWN | {"subtype", "remount"}


@dataclass(frozen=True, slots=True)
class SwapSpec:
    """One swap volume: the name of its file and its size in bytes.

    `overflow` is the absolute path of the file or block device for what the budget does not hold.
    """

    name: str
    size: int
    overflow: str | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9._-]+", self.name) or self.name in (".", ".."):
            raise UsageError(
                f"swap: {self.name!r} cannot be a name; use letters, digits, '.', '_' and '-'"
            )
        if self.name == "cache":
            raise UsageError(
                "swap: 'cache' is what the pages of files are called in all figures; choose another"
            )
        if self.size < SMALLEST_SWAP or self.size % SWAP_PAGE:
            raise UsageError(
                f"swap: the size of {self.name!r} is {self.size} bytes; it must be a multiple of "
                f"{SWAP_PAGE} and at least {format_size(SMALLEST_SWAP)}"
            )
        if self.size > LARGEST_SWAP:
            raise UsageError(
                f"swap: the size of {self.name!r} is more than {format_size(LARGEST_SWAP)}"
            )
        if self.overflow is not None and not os.path.isabs(self.overflow):
            raise UsageError(f"overflow: {self.overflow!r} must be an absolute path")

    @classmethod
    def parse(cls, text: str) -> SwapSpec:
        """The volume that `NAME=SIZE` means."""
        name, equals, size = text.partition("=")
        if not equals:
            raise UsageError(f"swap: {text!r} must be NAME=SIZE, as in swap0=4G")
        return cls(name, _size("swap", size))


@dataclass(frozen=True, slots=True)
class MountConfig:
    """Everything the daemon has to know; what cannot be is refused here with a UsageError.

    Sizes are bytes, timeouts seconds. `readahead` is the most that is read ahead of a reader, 0 for
    nothing; with `noatime` the source's access times stay; `trace` is the absolute path of the file
    that notes what is read; `log` is where the daemon logs: ``stderr``, ``syslog``, an absolute
    path, or None for what suits where it runs. Unless `native`, no page is kept or read by the
    extensions in C, where there are any. `fuse_options` is what the FUSE session gets besides
    its defaults, each ready for libfuse: ASCII, with commas and backslashes escaped. `reserve` is
    how much of the budget is taken from the system at the start and kept; None is all of it where
    there are swap volumes, and nothing where there are none. With `swap_only` nothing but swap
    volumes is to be used: few requests are served at once.
    """

    source: str
    mountpoint: str
    budget: int
    reserve: int | None = None
    realtime: bool = False
    swap_only: bool = False
    page_size: int = DEFAULT_PAGE_SIZE
    swaps: tuple[SwapSpec, ...] = ()
    read_only: bool = False
    noatime: bool = False
    cache: CacheMode = "open"
    writeback: bool = False
    readahead: int = DEFAULT_READAHEAD
    trace: str | None = None
    log: str | None = None
    native: bool = True
    attr_timeout: float = 1.0
    entry_timeout: float = 1.0
    fuse_options: frozenset[str] = field(default=frozenset())
    foreground: bool = False
    debug: bool = False

    def __post_init__(self) -> None:
        for path in (self.source, self.mountpoint):
            if not os.path.isabs(path):
                raise UsageError(f"{path!r} must be an absolute path")
        if self.budget <= 0:
            raise UsageError("budget: must be more than nothing")
        if self.reserve is not None and self.reserve > self.budget:
            raise UsageError("reserve: cannot be more than the budget")
        if not 4096 <= self.page_size <= 65536 or self.page_size & (self.page_size - 1):
            raise UsageError(f"page_size: {self.page_size} must be 4K, 8K, 16K, 32K or 64K")
        for name in ("attr_timeout", "entry_timeout"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise UsageError(f"{name}: must be a number of seconds, 0 or more")
        if self.cache not in get_args(CacheMode):
            raise UsageError(f"cache: {self.cache!r} must be none, open or always")
        if self.writeback and self.cache == "none":
            raise UsageError("writeback: with cache=none the kernel keeps nothing to write back")
        if self.readahead > LARGEST_READAHEAD:
            raise UsageError(f"readahead: must be at most {format_size(LARGEST_READAHEAD)}")
        if self.trace is not None and not os.path.isabs(self.trace):
            raise UsageError(f"trace: {self.trace!r} must be an absolute path")
        if self.log not in (None, *LOGS) and not os.path.isabs(self.log):
            raise UsageError(f"log: {self.log!r} must be stderr, syslog or an absolute path")
        if self.log == "stderr" and not self.foreground:
            raise UsageError("log: a daemon in the background has no stderr; use --foreground")
        names = [swap.name for swap in self.swaps]
        for name in names:
            if names.count(name) > 1:
                raise UsageError(f"swap: {name!r} is there twice")
        files = [swap.overflow for swap in self.swaps if swap.overflow is not None]
        for file in files:
            if files.count(file) > 1:
                raise UsageError(f"overflow: {file!r} is there twice; each volume needs its own")
        check_budget(self.budget, self.swaps)
        if self.swap_only and not self.swaps:
            raise UsageError("swap_only: there is no swap volume; name one with swap=NAME=SIZE")
        if self.swaps and self.read_only:
            raise UsageError("swap: nothing can be swapped to a read-only mount")

    def restricted(self, flags: Iterable[str]) -> MountConfig:
        """The same with `flags` (nosuid, nodev, noexec) set, whatever was asked for."""
        options = set(self.fuse_options)
        for flag in flags:
            options.discard(_OPPOSITES[flag])
            options.add(flag)
        return replace(self, fuse_options=frozenset(options))


def least_budget(swaps: Iterable[SwapSpec]) -> int:
    """The smallest budget in bytes of a mount with these volumes, at first as well as later.

    The tables of what is outside are always in memory, and must leave half of it to pages.
    """
    return 2 * TABLES_PER_PAGE * (_overflowed(swaps) // SWAP_PAGE)


def check_budget(budget: int, swaps: Sequence[SwapSpec]) -> None:
    """Raise UsageError where a budget in bytes is less than the `least_budget`."""
    if budget < least_budget(swaps):
        raise UsageError(
            f"budget: {format_size(budget)} is too little for {format_size(_overflowed(swaps))} of "
            f"swap with overflow, which takes {format_size(least_budget(swaps))}"
        )


def _overflowed(swaps: Iterable[SwapSpec]) -> int:
    return sum(swap.size for swap in swaps if swap.overflow is not None)


def default_budget() -> int:
    """1 GiB, or a quarter of the usable memory where that is less."""
    return min(1 << 30, system.usable_memory() // 4)


def split_options(text: str) -> list[str]:
    """The options of an `-o` list. A backslash takes the meaning from the comma that follows."""
    words = re.findall(r"(?:[^,\\]|\\.?)+", text, flags=re.DOTALL)
    return [re.sub(r"\\([,\\])", r"\1", word) for word in words]


def without_added(words: Sequence[str]) -> list[str]:
    """`words` without what mount.fuse3 has added at their end: what was not asked for.

    That is `dev` unless `nodev` is among them, then `suid` unless `nosuid` is.
    """
    added = [word for word in ("dev", "suid") if f"no{word}" not in words]
    asked = len(words) - len(added)
    return list(words[:asked] if words[asked:] == added else words)


def offered_options() -> list[str]:
    """The options that do something, as a shell completes them: in full, or up to the `=`."""
    values = [f"{key}={value}" for key, choices in _CHOICES.items() for value in choices]
    open_ended = [f"{key}=" for key in {*OWN_KEYS, *_VALUES} - _CHOICES.keys() | {"log"}]
    return sorted([*values, *open_ended, *_FLAGS, *_SWITCHES, *OWN_SWITCHES])


def escape_option(value: str) -> str:
    """`value` as libfuse reads it in an option: `\\,`, `\\\\`, and octal where it is not ASCII."""
    return "".join(
        f"\\{chr(byte)}" if byte in b",\\" else chr(byte) if 32 < byte < 127 else f"\\{byte:03o}"
        for byte in os.fsencode(value)
    )


def parse_mount(
    source: str,
    mountpoint: str,
    options: Iterable[str] = (),
    *,
    as_root: bool,
    sloppy: bool = False,
    foreground: bool = False,
    debug: bool = False,
) -> MountConfig:
    """The mount that `options` (`word` or `key=value`; a later one wins) ask for.

    As root, other users may use the mount, as any other; without it they may if that is asked
    for. With `sloppy`, unknown options are left out instead of being an error.
    """
    own: dict[str, str] = {}
    swaps: list[SwapSpec] = []
    overflows: dict[str, str] = {}
    words: dict[str, str] = {"fsname": f"fsname={escape_option(source)}"}
    if as_root:
        words["allow_other"] = "allow_other"
    for option in options:
        key, equals, value = option.partition("=")
        if key in _IGNORED or option.startswith(_IGNORED_PREFIXES):
            continue
        if key in _WITHOUT_EFFECT and not sloppy:
            raise UsageError(f"the option {key!r} would do nothing: {_WITHOUT_EFFECT[key]}")
        if key not in _KNOWN:
            if sloppy:
                continue
            raise UsageError.unknown("option", key, _KNOWN)
        _check_value(key, bool(equals), value)
        if key == "swap":
            swaps.append(SwapSpec.parse(value))
        elif key == "overflow":
            name, file = split_overflow(value)
            overflows[name] = file
        elif key in _OWN:
            own[key] = value
        elif key in _FLAGS:
            words[_OPPOSITES.get(key, key)] = key  # takes the place of its opposite
        elif key in _ALLOWED:
            words[_OPPOSITES[f"no{_ALLOWED[key]}"]] = _ALLOWED[key]
        elif key == "allow_root":
            words["allow_other"] = key  # libfuse has either
        elif key != "subtype":
            words[key] = f"{key}={escape_option(value)}" if equals else key
    words.setdefault("rw", "rw")
    cache = cast(CacheMode, own.get("cache", "open"))
    believed = str(_BELIEVED.get(cache, 1.0))
    names = {swap.name for swap in swaps}
    for name in overflows:
        if name not in names:
            raise UsageError.unknown("swap volume", name, names)
    return MountConfig(
        source=source,
        mountpoint=mountpoint,
        budget=_budget(own["budget"]) if "budget" in own else default_budget(),
        reserve=_size("reserve", own["reserve"]) if "reserve" in own else None,
        realtime="realtime" in own,
        swap_only="swap_only" in own,
        page_size=_size("page_size", own.get("page_size", str(DEFAULT_PAGE_SIZE))),
        swaps=tuple(replace(swap, overflow=overflows.get(swap.name)) for swap in swaps),
        read_only=words["rw"] == "ro",
        noatime=words.get("atime") == "noatime",
        cache=cache,
        writeback="writeback" in own,
        readahead=_size("readahead", own.get("readahead", str(DEFAULT_READAHEAD))),
        trace=own.get("trace"),
        log=own.get("log"),
        native=_switch("native", own.get("native", "on")),
        attr_timeout=_seconds("attr_timeout", own.get("attr_timeout", believed)),
        entry_timeout=_seconds("entry_timeout", own.get("entry_timeout", believed)),
        fuse_options=frozenset(words.values()) | {"subtype=tmemfs"},
        foreground=foreground,
        debug=debug,
    )


def _switch(key: str, value: str) -> bool:
    if value not in _CHOICES[key]:
        raise UsageError(f"{key}: {value!r} must be on or off")
    return value == "on"


def split_overflow(text: str) -> tuple[str, str]:
    """The name and the file that `NAME=FILE` means."""
    name, _, file = text.partition("=")
    if not (name and file):
        raise UsageError(f"overflow: {text!r} must be NAME=FILE, as in swap0=/var/lib/swap0")
    return name, file


def _check_value(key: str, given: bool, value: str) -> None:
    if key == "remount":
        raise MountFailure("a tmemfs mount cannot be remounted; unmount it and mount it again")
    if key == "subtype" and value != "tmemfs":
        raise UsageError("subtype: is always 'tmemfs'; mounts are found by it")
    if key in OWN_KEYS or key in _VALUES or key == "subtype":
        if not value:
            raise UsageError(f"the option {key!r} needs a value, as in {key}=...")
    elif given:
        raise UsageError(f"the option {key!r} takes no value")


def _size(key: str, text: str) -> int:
    try:
        return parse_size(text)
    except UsageError as exc:
        raise UsageError(f"{key}: {exc}") from None


def _budget(text: str) -> int:
    budget, memory = _size("budget", text), system.usable_memory()
    if budget > memory:
        whose = "this machine has" if memory == system.physical_memory() else "its cgroup permits"
        raise UsageError(f"budget: {text} is more than the {format_size(memory)} of memory {whose}")
    return budget


def _seconds(key: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{key}: {text!r} is not a number of seconds") from None
