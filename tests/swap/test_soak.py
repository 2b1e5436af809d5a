"""Swap for long, in every shape: no wrong page, no hang, and the account is right at the end.

A program with many times its memory, again and again with other pages, while others read and
write files through the same mount. TMEMFS_TEST_SOAK_SECONDS is for all variants together; without
it each has one program, and a smaller one. What was done is printed (`pytest -s`).
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import loop_swap
import memory_pressure
import pytest
from file_work import Reader, Writer, digest, make_files, read_past_kernel
from loop_swap import detach, used_swap
from memory_limit import MemoryLimit
from mounting import Mounted, mounted, wait_for

pytestmark = [pytest.mark.root, pytest.mark.swap]

SECONDS = int(os.environ.get("TMEMFS_TEST_SOAK_SECONDS", "0"))
MIB = 1 << 20
PAGE = 4096
HIGHEST = 32767  # else pages might go to other swap of this machine
PROGRAM_SECONDS = 300  # of one program; it takes some five
# What the daemon has beside its budget (80 MiB, and 24 for an overflow file, as docs/swap-safety.md
# says), and by how much that may grow once it has settled.
SLACK = 104 * MIB
GROWTH = 8 * MIB


# MiB that a program fills, and has; in 9 there is room for its interpreter and little else.
FOUR_TIMES = (64, 16) if SECONDS else (32, 8)
SIXTEEN_TIMES = (144, 9) if SECONDS else (40, 8)


@dataclass(frozen=True)
class Volume:
    """A swap volume of `size` bytes; those that come first are used first."""

    name: str
    size: int
    overflows: bool = False


class Variant:
    """A program that fills `fill` bytes under a limit of `limit`, on volumes of a budget.

    With an overflow, the budget is a tenth of what is filled (or the least that makes sense), else
    it holds the whole volume. The sizes of volumes are in parts of `fill`.
    """

    def __init__(
        self,
        times: tuple[int, int],
        *discard: str,
        overflow: float | None = None,
        none: float | None = None,
        order: str = "overflow none",
    ) -> None:
        self.discard = discard
        self.fill, self.limit = (size * MIB for size in times)
        sizes = {"overflow": overflow, "none": none}
        self.volumes = [
            Volume(name, int(self.fill * size) // PAGE * PAGE, name == "overflow")
            for name in order.split()
            if (size := sizes[name])
        ]
        held = sum(volume.size for volume in self.volumes) * 3 // 4
        self.budget = max(self.fill // 10, 8 * MIB) if overflow else held


VARIANTS = {
    "4 times, discard pages": Variant(FOUR_TIMES, "--discard=pages", none=1.5),
    "4 times, discard once": Variant(FOUR_TIMES, "--discard=once", none=1.5),
    "4 times, no discard": Variant(FOUR_TIMES, none=1.5),
    "4 times, overflow": Variant(FOUR_TIMES, "--discard", overflow=1.5),
    "16 times, discard pages": Variant(SIXTEEN_TIMES, "--discard=pages", overflow=1.25),
    "16 times, discard once": Variant(SIXTEEN_TIMES, "--discard=once", overflow=1.25),
    "16 times, no discard": Variant(SIXTEEN_TIMES, overflow=1.25),
    "16 times, overflow first": Variant(SIXTEEN_TIMES, "--discard", overflow=7 / 8, none=1 / 6),
    "16 times, overflow second": Variant(
        SIXTEEN_TIMES, "--discard", overflow=1.25, none=1 / 18, order="none overflow"
    ),
}


class KernelLog:
    """What the kernel says of swap and its devices that went wrong, from now on."""

    SIGNS = ("i/o error", "write-error", "read-error", "blocked for more than", "bad swap")

    def __init__(self) -> None:
        self._file: int | None = None
        with suppress(OSError):  # not in every container
            self._file = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
            os.lseek(self._file, 0, os.SEEK_END)

    def complaints(self) -> list[str]:
        """Those since the last time."""
        return [line for line in self._lines() if any(sign in line.lower() for sign in self.SIGNS)]

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)

    def _lines(self) -> Iterator[str]:
        while self._file is not None:
            try:
                yield os.read(self._file, 8192).decode(errors="replace")
            except BrokenPipeError:  # some were overwritten before they were read
                continue
            except BlockingIOError:
                return


@dataclass
class Soak:
    """A mount with the volumes of a variant, and what is done on it."""

    variant: Variant
    mount: Mounted
    digests: dict[str, bytes]
    seed: int = 0
    swapped: int = 0
    resident: list[int] = field(default_factory=list)

    @contextmanager
    def swap(self) -> Iterator[list[str]]:
        """Swap on all volumes; their devices."""
        devices = []
        try:
            for place, volume in enumerate(self.variant.volumes):
                file = self.mount.control / "swap" / volume.name
                device = loop_swap.run("losetup", "--find", "--show", "--direct-io=on", file)
                loop_swap.run("mkswap", device)
                priority = f"--priority={HIGHEST - place}"
                loop_swap.run("swapon", *self.variant.discard, priority, device)
                devices.append(device)
            yield devices
        finally:
            detach(self.mount.path)

    def program(self) -> None:
        """Run it once, with pages that it never had."""
        self.seed += 1
        before, pages = self.puts(), self.variant.fill // PAGE
        argv = [
            *(sys.executable, memory_pressure.__file__, f"--seed={self.seed}"),
            f"--mib={self.variant.fill // MIB}",
            f"--accesses={(pages // 8, pages // 2, pages)[self.seed % 3] if SECONDS else 500}",
        ]
        with (
            MemoryLimit(self.variant.limit) as limit,
            subprocess.Popen(
                limit.command(argv), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            ) as process,
        ):
            try:
                out, err = process.communicate(timeout=PROGRAM_SECONDS)
            except subprocess.TimeoutExpired:
                said = f"hangs; the daemon waits in {waits_in(self.mount.process.pid)}"
                # Or nothing that waits for it could be ended.
                self.mount.kill()
                raise AssertionError(said) from None
        assert process.returncode == 0, out + err + self.mount.log()
        assert out.count(" 0 wrong") == 4
        now = self.puts()
        assert all(now[name] > before[name] for name in now), f"unused: {before} {now}"
        self.swapped += sum(now.values()) - sum(before.values())
        self.resident.append(self.mount.resident())
        self.check_account()

    def puts(self) -> dict[str, int]:
        return {v.name: self.mount.pool(v.name)["good_puts"] for v in self.variant.volumes}

    def check_account(self) -> None:
        status = self.mount.status()
        memory, pools = status["memory"], {pool["name"]: pool for pool in status["pools"]}
        assert status["failsafe"] == {"count": 0, "last": None}
        for key in ("orig_data_size", "compr_data_size", "mem_used_total", "metadata_bytes"):
            assert memory[key] == sum(pool[key] for pool in pools.values()), key
        assert memory["mem_limit"] == self.variant.budget
        assert memory["mem_used_total"] + memory["metadata_bytes"] <= memory["mem_limit"]
        assert memory["compr_data_size"] <= memory["mem_used_total"] <= memory["mem_used_max"]
        for pool in pools.values():
            assert pool["corrupt_pages"] == pool["bad_puts"] == 0
            assert pool["found_gets"] <= pool["gets"]
        for volume, told in zip(self.variant.volumes, status["swaps"], strict=True):
            pool = pools[volume.name]
            assert pool["no_mem_puts"] == 0
            assert pool["pages"] * PAGE <= told["size"] == volume.size
            if volume.overflows:
                assert told["overflow_errors"] == 0
                assert told["overflow_pages"] == pool["overflow_pages"] <= pool["pages"]
        assert self.mount.resident() < self.variant.budget + SLACK

    def check_end(self) -> None:
        """Nothing is left of swap, and the cache has all the memory."""
        for volume in self.variant.volumes:
            wait_for("it is empty", lambda v=volume: self.mount.pool(v.name)["pages"] == 0)
        for name, expected in self.digests.items():
            assert digest(read_past_kernel(self.mount.path / name)) == expected
        cache = self.mount.pool("cache")
        assert cache["mem_used_total"] > self.variant.budget * 3 // 4
        assert cache["found_gets"] > 0
        self.check_account()
        settled = self.resident[len(self.resident) // 4]
        assert self.resident[-1] < settled + GROWTH, self.resident


def waits_in(pid: int) -> list[str]:
    """Where each thread of a process is, in the kernel."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [f"{task.name}: {(task / 'stack').read_text()}" for task in tasks]


@contextmanager
def soak(variant: Variant, tmp_path: Path) -> Iterator[Soak]:
    source = tmp_path / "source"
    source.mkdir()
    digests = make_files(source, variant.budget * 5 // 4)
    options = [f"--budget={variant.budget}"]
    for volume in variant.volumes:
        options += [f"--swap={volume.name}={volume.size}"]
        if volume.overflows:
            options += [f"--overflow={volume.name}={tmp_path / volume.name}"]
    with mounted(source, tmp_path / "m", *options) as mount:
        try:
            yield Soak(variant, mount, digests)
        finally:
            detach(mount.path)


@pytest.mark.parametrize("name", VARIANTS)
def test_soak(name: str, tmp_path: Path) -> None:
    variant = VARIANTS[name]
    start = time.monotonic()
    end = start + SECONDS / len(VARIANTS)
    with ExitStack() as stack:
        made = stack.enter_context(soak(variant, tmp_path))
        kernel = KernelLog()
        stack.callback(kernel.close)
        reader = Reader(made.mount.path, made.digests, 1)
        writer = Writer(made.mount.path, made.mount.source, 2)
        with reader.working(), writer.working():
            turns = 0
            while not turns or time.monotonic() < end:
                with made.swap() as devices:
                    # Some begin with what others have left.
                    for _ in range(1 + turns % 3):
                        made.program()
                        reader.check()
                        writer.check()
                        assert kernel.complaints() == []
                        assert all(used_swap(device) is not None for device in devices)
                turns += 1
        made.check_end()
        assert kernel.complaints() == []
        done = (
            f"{name}: {made.seed} programs, swap on {turns} times, {made.swapped} pages out, "
            f"{reader.steps} files read, {writer.steps} written, "
            f"{time.monotonic() - start:.0f} s; resident (MiB): "
            + " ".join(str(size // MIB) for size in made.resident)
        )
    print(f"\n{done}")
