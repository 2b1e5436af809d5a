"""Real swap, of which the budget holds a tenth and an overflow file the rest."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import loop_swap
import memory_pressure
import pytest
from command import new_place
from loop_swap import detach, used_swap
from memory_limit import MemoryLimit
from mounting import Mounted, mounted, wait_for
from page_data import run

from tmemfs.swap.slots import FIRST

pytestmark = [pytest.mark.root, pytest.mark.swap]

MIB = 1 << 20
PAGE = 4096
KEEPER = Path(__file__).with_name("keeps_pages.py")
HIGHEST = "32767"  # else pages might go to other swap of this machine


@contextmanager
def overflowing(tmp_path: Path, size: int, budget: int, *, logs: bool = False) -> Iterator[Mounted]:
    """A mount of some files, with a swap volume `s` that overflows."""
    source = tmp_path / "source"
    source.mkdir()
    for number in range(20):
        (source / f"f{number}").write_bytes(run(number, 20))
    options = (f"--budget={budget}", f"--swap=s={size}", f"--overflow=s={tmp_path / 'overflow'}")
    with mounted(source, tmp_path / "m", *options, logs=logs) as made:
        try:
            yield made
        finally:
            detach(made.path)


@contextmanager
def swap_first(file: Path) -> Iterator[str]:
    """Swap on `file`, before all other swap of this machine."""
    try:
        device = loop_swap.run("losetup", "--find", "--show", "--direct-io=on", file)
        loop_swap.run("mkswap", device)
        loop_swap.run("swapon", "--discard", f"--priority={HIGHEST}", device)
        yield device
    finally:
        detach(file)


def volume(mount: Mounted) -> Path:
    return mount.control / "swap" / "s"


def figures(mount: Mounted) -> dict[str, int]:
    (told,) = mount.status()["swaps"]
    return dict(told)


class Reader(threading.Thread):
    """Reads the files of a mount again and again, past the kernel's own cache."""

    def __init__(self, mount: Mounted) -> None:
        super().__init__()
        self.rounds = 0
        self.wrong: list[str] = []
        self._mount = mount
        self._end = threading.Event()

    def run(self) -> None:
        while not self._end.is_set():
            for number in range(20):
                with open(self._mount.path / f"f{number}", "rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                    if file.read() != run(number, 20):
                        self.wrong.append(file.name)
            self.rounds += 1

    def __enter__(self) -> "Reader":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self.join()


def test_a_program_with_sixteen_times_its_memory(tmp_path: Path) -> None:
    fill, limit = 144, 9  # of the limit, the interpreter takes most
    program = [sys.executable, memory_pressure.__file__, "--mib", str(fill), "--accesses", "6000"]
    with (
        overflowing(tmp_path, (fill + 32) * MIB, fill * MIB // 10) as mount,
        swap_first(volume(mount)) as device,
        Reader(mount) as reader,
        MemoryLimit(limit * MIB) as group,
    ):
        done = subprocess.run(group.command(program), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count(" 0 wrong") == 4
        status = mount.status()
        (told,), (pool,) = status["swaps"], [p for p in status["pools"] if p["name"] == "s"]
        assert told["overflow"] == str(tmp_path / "overflow")
        assert told["overflow_pages"] == pool["overflow_pages"] <= pool["pages"]
        # What was outside was far more than what was inside.
        assert told["overflow_writes"] > (fill - limit) * MIB * 0.6 / PAGE
        assert told["overflow_reads"] > (fill - limit) * MIB * 0.6 / PAGE
        assert told["overflow_errors"] == 0
        assert status["reclaim"]["written_back_pages"] <= told["overflow_writes"]
        assert status["memory"]["mem_used_max"] <= fill * MIB // 10
        assert pool["no_mem_puts"] == pool["corrupt_pages"] == 0
        assert status["failsafe"]["count"] == 0
        assert used_swap(device) is not None
    assert reader.rounds > 2
    assert reader.wrong == []
    assert mount.process.returncode == 0


def test_a_damaged_slot_ends_only_the_program_that_wants_it(tmp_path: Path) -> None:
    with (
        overflowing(tmp_path, 160 * MIB, 8 * MIB, logs=True) as mount,
        swap_first(volume(mount)),
        keeper("one") as one,
        keeper("two") as two,
    ):
        assert wrong_pages(two) == "0 wrong\n"
        assert figures(mount)["overflow_pages"] > 40 * MIB // PAGE
        assert damage(tmp_path / "overflow", b"one ") > 10 * MIB // PAGE
        assert wrong_pages(one) == ""
        assert one.wait(60) == -signal.SIGBUS
        assert figures(mount)["overflow_errors"] > 0
        assert wrong_pages(two) == wrong_pages(two) == "0 wrong\n"
        assert (mount.path / "f3").read_bytes() == run(3, 20)
        assert mount.status()["failsafe"]["count"] == 0
        assert "has a wrong checksum" in mount.log()


@contextmanager
def keeper(name: str) -> Iterator["subprocess.Popen[str]"]:
    """A program that keeps 48 MiB of pages in 16 MiB of memory."""
    program = [sys.executable, KEEPER, "48", name]
    path = os.pathsep.join(sys.path)
    with (
        MemoryLimit(16 * MIB) as limit,
        subprocess.Popen(
            limit.command(program),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": path},
        ) as process,
    ):
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "filled\n"
            yield process
        finally:
            process.kill()


def wrong_pages(process: "subprocess.Popen[str]") -> str:
    """What a keeper finds."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline()


def damage(file: Path, name: bytes) -> int:
    """Write into every slot whose page begins with `name`; return how many there were."""
    found = 0
    with open(file, "r+b") as slots:
        content = slots.read()
        for start in range(FIRST, len(content), PAGE):
            if content.startswith(name, start):
                os.pwrite(slots.fileno(), b"damage", start + 2000)
                found += 1
        os.fsync(slots.fileno())
    return found


def test_a_smaller_budget_while_swap_is_on(tmp_path: Path) -> None:
    with (
        overflowing(tmp_path, 96 * MIB, 64 * MIB) as mount,
        swap_first(volume(mount)),
        keeper("one") as one,
    ):
        (mount.control / "budget").write_text("10M")
        memory = mount.status()["memory"]
        assert memory["mem_used_total"] + memory["metadata_bytes"] <= 10 * MIB
        assert figures(mount)["overflow_pages"] > 5 * MIB // PAGE
        assert wrong_pages(one) == "0 wrong\n"
        one.kill()
        # What the program had is given back, wherever it was.
        wait_for("it is freed", lambda: mount.pool("s")["pages"] < 1000)


@contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """A filesystem of 32 MiB."""
    image, small = place / "image", place / "small"
    small.mkdir()
    with open(image, "wb") as file:
        file.truncate(32 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, small], check=True)
    try:
        yield small
    finally:
        subprocess.run(["umount", small], check=True)


def test_space_that_is_not_there_is_found_at_the_start(tmp_path: Path) -> None:
    """Nothing is mounted then, and nothing is left behind."""
    with small_disk(tmp_path) as small, new_place(tmp_path) as place:
        files = (f"s={small / 'first'}", f"t={small / 'second'}")
        volumes = ("--swap=s=4M", "--swap=t=64M", *(f"--overflow={file}" for file in files))
        said = place.mount(*volumes, code=32).err
        assert f"{small / 'second'}: " in said
        assert "are not to be had: No space left on device" in said
        assert place.entry is None
        assert not (small / "second").exists()


def test_the_figures_of_a_volume_that_overflows(tmp_path: Path) -> None:
    with overflowing(tmp_path, 16 * MIB, 4 * MIB) as mount:
        with open(volume(mount), "r+b", buffering=0) as file:
            for at in range(0, 16 * MIB, MIB):
                assert os.pwrite(file.fileno(), run(at, 256), at) == MIB
            for at in range(0, 16 * MIB, MIB):
                assert os.pread(file.fileno(), MIB, at) == run(at, 256)
        told = figures(mount)
        assert 12 * MIB < told["overflow_pages"] * PAGE < 16 * MIB
        assert told["overflow_writes"] >= told["overflow_pages"] <= told["overflow_reads"]
        assert (told["size"], told["overflow_errors"]) == (16 * MIB, 0)
        metrics = (mount.control / "metrics").read_text()
        assert 'overflow_pages{pool="s"' in metrics
        assert f" {told['overflow_pages']}\n" in metrics
