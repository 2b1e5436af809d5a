"""The ways to have swap that are compared, each set up for as long as its context lasts."""

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from loop_swap import detach, run, used_swap

from benchmarks import servers
from benchmarks.compiler import compile_c

HERE = Path(__file__).parent
ZRAM = Path("/sys/class/zram-control")
READY_SECONDS = 20.0
SWAPOFF_ATTEMPTS = 10
# Before all other swap of the machine. The kernel knows no higher one.
PRIORITY = 32767

TMEMFS = "tmemfs"
TMEMFS_OFF = "tmemfs, native=off"
NULL_PYFUSE3 = "null pyfuse3"
NULL_C = "null C"
NBD_SPARSE = "nbdfuse sparse"
NBD_ZSTD = "nbdfuse zstd"
ZRAM_LZ4 = "zram lz4"
DISK = "disk file"


@dataclass(frozen=True)
class Device:
    """What `mkswap` can be called on: a block device, or for the disk a file.

    *memory* tells how many bytes of memory what was written to it takes now; None where it keeps
    nothing there or does not compress, so that there is nothing to compare.
    """

    path: Path
    memory: Callable[[], int] | None = None
    discard: bool = True


@dataclass(frozen=True)
class Peer:
    """One way: *device* makes it, given an empty directory and a size in bytes.

    `lacking` says why it cannot be had here, None where it can. What only trying can tell is an
    OSError of *device*.
    """

    name: str
    device: Callable[[Path, int], AbstractContextManager[Device]]
    programs: tuple[str, ...] = ()
    file: Path = Path("/dev/fuse")

    def lacking(self) -> str | None:
        missing = servers.lacking(*self.programs)
        return missing or (None if self.file.exists() else f"no {self.file}")


@contextmanager
def swapping(device: Device) -> Iterator[Callable[[], int]]:
    """Swap on *device*; yields what tells how many bytes are swapped out to it.

    Discard tells it which pages the kernel does not need any more, where it wants to know.
    """
    path = str(device.path)
    run("mkswap", path)
    run("swapon", f"--priority={PRIORITY}", *(["--discard"] if device.discard else []), path)
    try:
        yield lambda: used_swap(path) or 0
    finally:
        _swap_off(path)


def _swap_off(path: str) -> None:
    """As often as it takes: pages of another program's may have no room in its memory just now."""
    for attempts_left in reversed(range(SWAPOFF_ATTEMPTS)):
        try:
            run("swapoff", path)
            return
        except OSError:
            if not attempts_left:
                raise
            time.sleep(1)


# --- tmemfs, and filesystems that only keep bytes ----------------------------------------------


@contextmanager
def _tmemfs(native: str, place: Path, size: int) -> Iterator[Device]:
    source = place / "empty"
    source.mkdir()
    options = [f"--swap=swap0={size}", f"-onative={native}"]
    with servers.tmemfs(
        source, place / "mount", budget=size, page_size=4096, options=options
    ) as mount:

        def memory() -> int:
            now = servers.status(mount)["memory"]
            return int(now["mem_used_total"]) + int(now["metadata_bytes"])

        with _loop(mount / ".tmemfs" / "swap" / "swap0") as path:
            yield Device(path, memory)


@contextmanager
def _null_pyfuse3(place: Path, size: int) -> Iterator[Device]:
    with (
        servers.null_pyfuse3(_zeros(place, size), place / "mount", _in_memory(place)) as file,
        _loop(file) as path,
    ):
        yield Device(path, discard=False)  # for it has no fallocate


@contextmanager
def _null_c(place: Path, size: int) -> Iterator[Device]:
    """One thread, libfuse's low-level interface."""
    if reason := servers.compile_null_c(place):
        raise OSError(reason)
    with (
        servers.null_c(_zeros(place, size), place / "mount", _in_memory(place)) as file,
        _loop(file) as path,
    ):
        yield Device(path, discard=False)  # for it has no fallocate


def _zeros(place: Path, size: int) -> Path:
    file = place / "zeros"
    with open(file, "wb") as zeros:
        zeros.truncate(size)
    return file


# --- nbdkit behind nbdfuse ---------------------------------------------------------------------


@contextmanager
def _nbdfuse(allocator: str, place: Path, size: int) -> Iterator[Device]:
    """Both have threads, and nbdfuse has several connections: as they come."""
    socket = place / "nbd"
    in_memory = _in_memory(place)
    with _nbdkit(socket, in_memory, f"size={size}", f"allocator={allocator}") as pid:
        mountpoint = place / "mount"
        file = mountpoint / "data"
        command = ["nbdfuse", str(file), f"nbd+unix:///?socket={socket}"]
        with servers.mounted(command, mountpoint, in_memory), _loop(file) as path:
            yield Device(path, partial(_resident, pid))


@contextmanager
def _nbdkit(socket: Path, environment: dict[str, str], *options: str) -> Iterator[int]:
    """A disk in memory, served on *socket*; yields the process id.

    Not with `--swap`, which locks the stacks of its threads whole: half a gigabyte.
    """
    command = ["nbdkit", "--foreground", "--unix", str(socket), "memory", *options]
    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environment},
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + READY_SECONDS
        while not socket.exists():
            if server.poll() is not None or time.monotonic() > deadline:
                raise OSError(f"nothing is served by: {' '.join(command)}")
            time.sleep(0.02)
        yield server.pid
    finally:
        server.terminate()
        server.wait()


def _resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    found = re.search(r"^VmRSS:\s*(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) << 10 if found else 0


# --- the kernel's own --------------------------------------------------------------------------


@contextmanager
def _zram(_: Path, size: int) -> Iterator[Device]:
    path = Path(run("zramctl", "--find", "--size", str(size), "--algorithm", "lz4"))
    statistics = Path("/sys/block", path.name, "mm_stat")
    try:
        # orig_data_size compr_data_size mem_used_total ...
        yield Device(path, lambda: int(statistics.read_text().split()[2]))
    finally:
        run("zramctl", "--reset", path)


@contextmanager
def _disk(place: Path, size: int) -> Iterator[Device]:
    file = place / "swapfile"
    with open(file, "wb") as made:
        os.fchmod(made.fileno(), 0o600)
        os.posix_fallocate(made.fileno(), 0, size)
    try:
        yield Device(file, discard=False)
    finally:
        file.unlink()


# --- parts -------------------------------------------------------------------------------------


@contextmanager
def _loop(file: Path) -> Iterator[Path]:
    """A loop device on *file*, with direct I/O, or the kernel would keep a second copy."""
    try:
        yield Path(run("losetup", "--find", "--show", "--direct-io=on", file))
    finally:
        detach(file)


def _in_memory(place: Path) -> dict[str, str]:
    """The environment of a server that is not to be swapped out; see `lock_memory.c`."""
    library = place / "lock_memory.so"
    compile_c(HERE / "lock_memory.c", library, "-shared", "-fPIC")
    return {"LD_PRELOAD": str(library)}


_NBD = ("nbdkit", "nbdfuse")
PEERS = {
    peer.name: peer
    for peer in (
        Peer(TMEMFS, partial(_tmemfs, "on")),
        Peer(TMEMFS_OFF, partial(_tmemfs, "off")),
        Peer(NULL_PYFUSE3, _null_pyfuse3),
        Peer(NULL_C, _null_c),
        Peer(NBD_SPARSE, partial(_nbdfuse, "sparse"), _NBD),
        Peer(NBD_ZSTD, partial(_nbdfuse, "zstd"), _NBD),
        Peer(ZRAM_LZ4, _zram, ("zramctl",), ZRAM),
        Peer(DISK, _disk),
    )
}
