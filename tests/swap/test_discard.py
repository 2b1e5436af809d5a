"""What the kernel frees leaves the swap volume: discard, all the way from a program that ends."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import memory_pressure
import pytest
from loop_swap import detach, run
from memory_limit import MemoryLimit
from mounting import Mounted, mounted, wait_for
from page_data import run as pages

pytestmark = [pytest.mark.root, pytest.mark.swap]

MIB = 1 << 20
# The kernel discards clusters of 512 pages in which nothing is in use. The first one holds the
# header: up to 2 MiB stay, which are less than 1 % only of more than 200 MiB.
FILL = 256
CLUSTER = 2 * MIB
SECONDS = 10


@contextmanager
def mount_with_swap(place: Path, *options: str, **more: object) -> Iterator[Mounted]:
    (place / "source").mkdir()
    options = ("--budget=256M", f"--swap=s={FILL + 32}M", *options)
    with mounted(place / "source", place / "m", *options, **more) as made:  # type: ignore[arg-type]
        try:
            yield made
        finally:
            detach(made.path)


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mounted]:
    with mount_with_swap(tmp_path) as made:
        yield made


@pytest.fixture
def alone() -> Iterator[None]:
    """Nothing swaps but what the test starts.

    A kernel may be told to swap out what no program has touched for a while (DAMON; some virtual
    machines do that from the start). Such pages would take slots of the device under test, and
    each keeps its cluster.
    """
    watchers = Path("/sys/kernel/mm/damon/admin/kdamonds").glob("*/state")
    running = [str(state) for state in watchers if state.read_text() == "on\n"]
    # The shell puts it back at the end of its input, thus also when the tests are killed.
    script = 'for f do echo off >"$f"; done; echo; cat; for f do echo on >"$f"; done'
    with subprocess.Popen(
        ["sh", "-c", script, "sh", *running], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as shell:
        assert shell.stdin is not None
        assert shell.stdout is not None
        shell.stdout.readline()
        yield
        shell.stdin.close()
        assert shell.wait() == 0


def attached(mount: Mounted) -> str:
    return run("losetup", "--find", "--show", "--direct-io=on", mount.control / "swap" / "s")


def kept(mount: Mounted) -> int:
    return int(mount.pool("s")["orig_data_size"])


def keeps(mount: Mounted, size: int) -> None:
    """Wait until the volume keeps so much: what was written is acknowledged before it is there."""
    wait_for(f"{size} bytes are kept", lambda: kept(mount) == size)


def fill(device: str, first: int, count: int) -> None:
    """Write so many pages to the device itself, past the kernel's cache."""
    command = ["dd", f"of={device}", "bs=1M", "oflag=direct,seek_bytes", f"seek={first * 4096}"]
    subprocess.run(
        [*command, "iflag=fullblock"], input=pages(first, count), capture_output=True, check=True
    )


def test_discards_of_the_device_reach_the_volume(mount: Mounted) -> None:
    device = attached(mount)
    queue = Path("/sys/block", Path(device).name, "queue")
    assert int((queue / "discard_max_bytes").read_text()) > MIB
    assert int((queue / "discard_granularity").read_text()) <= CLUSTER
    fill(device, 0, 2048)
    keeps(mount, 8 * MIB)
    run("blkdiscard", "--offset=1M", "--length=3M", device)
    keeps(mount, 5 * MIB)
    with open(mount.control / "swap" / "s", "rb") as file:
        assert file.read(8 * MIB) == pages(0, 256) + bytes(3 * MIB) + pages(1024, 1024)
    for options in ([], ["--zeroout"]):
        run("blkdiscard", *options, device)
        keeps(mount, 0)
        assert mount.pool("s")["compr_data_size"] == 0
        fill(device, 0, 256)
    assert mount.status()["failsafe"]["count"] == 0


@pytest.mark.usefixtures("alone")
def test_what_a_program_leaves_is_gone_within_seconds(mount: Mounted) -> None:
    device = attached(mount)
    run("mkswap", device)
    # Before all other swap that this machine may have.
    run("swapon", "--discard", "--priority=32767", device)
    program = [sys.executable, memory_pressure.__file__, f"--mib={FILL}", "--accesses=0"]
    with (
        MemoryLimit(FILL * MIB // 8) as limit,
        subprocess.Popen(limit.command(program), stdout=subprocess.PIPE, text=True) as running,
    ):
        assert running.stdout is not None
        peak = 0
        for line in running.stdout:
            assert " 0 wrong" in line
            peak = max(peak, kept(mount))
        assert running.wait() == 0
    ended = time.monotonic()
    assert peak > 100 * CLUSTER
    wait_for("what was swapped out is gone", lambda: kept(mount) * 100 < peak)
    assert time.monotonic() - ended < SECONDS
    assert mount.status()["failsafe"]["count"] == 0


def test_discard_once_empties_the_device_when_swap_goes_on(mount: Mounted) -> None:
    device = attached(mount)
    fill(device, 0, 2048)
    run("mkswap", device)
    run("swapon", device)
    run("swapoff", device)
    wait_for("it keeps all", lambda: kept(mount) > 7 * MIB)
    run("swapon", "--discard=once", device)
    # The header is not discarded.
    wait_for("the device is empty", lambda: kept(mount) <= 4096)


def test_without_the_extension_swap_works_and_keeps_what_it_has(tmp_path: Path) -> None:
    missing = "import sys\nsys.modules['tmemfs.fuse._session'] = None\n"
    with mount_with_swap(tmp_path, before=missing, logs=True) as mount:
        device = attached(mount)
        fill(device, 0, 2048)
        with suppress(OSError):  # some kernels say that it is not supported, others nothing
            run("blkdiscard", device)
        keeps(mount, 8 * MIB)
        run("mkswap", device)
        run("swapon", "--discard", device)
        run("swapoff", device)
        keeps(mount, 8 * MIB)
        # There is another way, which is to write zeros.
        run("blkdiscard", "--zeroout", device)
        keeps(mount, 0)


@pytest.mark.usefixtures("alone")
def test_what_stays_are_the_neighbours_of_pages_in_use(mount: Mounted) -> None:
    """The kernel discards whole clusters; no cluster without a page in use keeps anything."""
    device = attached(mount)
    run("mkswap", device)
    run("swapon", "--discard", "--priority=32767", device)
    program = [sys.executable, Path(__file__).with_name("drops_pages.py"), f"{FILL // 2}", "60"]
    with (
        MemoryLimit(FILL * MIB // 8) as limit,
        subprocess.Popen(
            limit.command(program), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as running,
    ):
        assert running.stdin is not None
        assert running.stdout is not None

        def step() -> str:
            return str(running.stdout.readline())  # type: ignore[union-attr]

        def go_on() -> None:
            running.stdin.write("\n")  # type: ignore[union-attr]
            running.stdin.flush()  # type: ignore[union-attr]

        assert step() == "filled\n"
        full = kept(mount)
        go_on()
        assert step() == "dropped\n"
        go_on()
        clusters = {int(slot) * 4096 // CLUSTER for slot in step().split()}
        assert clusters

        def filled() -> set[int]:
            with open(mount.control / "swap" / "s", "rb") as file:
                blocks = iter(lambda: file.read(CLUSTER), b"")
                return {number for number, block in enumerate(blocks) if any(block)}

        # The first has the header.
        wait_for("the others are discarded", lambda: filled() <= clusters | {0})
        assert kept(mount) <= (len(clusters) + 1) * CLUSTER < full
