"""An hour of random work in some seconds: memory stays within the budget at every sample."""

import os
import random
from pathlib import Path

import pytest
from mounting import Mounted, mounted

pytestmark = pytest.mark.root

MIB = 1 << 20
STEPS = int(os.environ.get("TMEMFS_TEST_STEPS", "2500"))
SLACK = 80 * MIB
FILES = 40
SWAP = 64 * MIB


class Work:
    """Random reads, writes and budgets on a mount, and what the swap volume must hold."""

    def __init__(self, mount: Mounted, seed: int) -> None:
        self.mount = mount
        self.random = random.Random(seed)
        self.swap = bytearray(SWAP)
        self.noise = self.random.randbytes(4 * MIB)
        self.budget = 0
        self.refused = {"swap": 0, "budget": 0}
        self.swap_fd = os.open(mount.control / "swap" / "s", os.O_RDWR)

    def close(self) -> None:
        os.close(self.swap_fd)

    def bytes(self, size: int) -> bytes:
        """Some noise, so that pages shrink to anything between nothing and themselves."""
        start = self.random.randrange(len(self.noise) - size)
        noisy = self.random.choice((0, size // 3, size, size))
        return self.noise[start : start + noisy].ljust(size, b"\0")

    def read(self) -> None:
        path = self.mount.path / str(self.random.randrange(FILES))
        with open(path, "rb", buffering=0) as file:
            file.seek(self.random.randrange(2 * MIB))
            file.read(self.random.randrange(MIB // 2))

    def write(self) -> None:
        path = self.mount.path / str(self.random.randrange(FILES))
        with open(path, "r+b", buffering=0) as file:
            file.seek(self.random.randrange(2 * MIB))
            file.write(self.bytes(self.random.randrange(1, MIB // 4)))

    def replace(self) -> None:
        path = self.mount.path / str(self.random.randrange(FILES))
        new = path.with_name("new")
        new.write_bytes(self.bytes(self.random.randrange(2 * MIB)))
        new.rename(path)

    def swap_out(self) -> None:
        size = self.random.choice((4096, 32768, 131072, 131072, 5000))
        offset = self.random.randrange((SWAP - size) // 512) * 512
        data = self.bytes(size)
        try:
            written = os.pwrite(self.swap_fd, data, offset)
        except OSError:
            self.refused["swap"] += 1
        else:
            self.swap[offset : offset + written] = data[:written]

    def swap_in(self) -> None:
        offset, size = self.random.randrange(SWAP), self.random.randrange(1, 200_000)
        assert os.pread(self.swap_fd, size, offset) == self.swap[offset : offset + size]

    def change_budget(self) -> None:
        try:
            (self.mount.control / "budget").write_text(f"{self.random.choice((8, 16, 24, 32))}M")
        except OSError:
            self.refused["budget"] += 1

    def sample(self) -> None:
        budget = int((self.mount.control / "budget").read_text())
        memory = self.mount.status()["memory"]
        assert memory["mem_limit"] == budget
        used = memory["mem_used_total"] + memory["metadata_bytes"]
        assert used <= budget + memory["segment_size"]
        assert self.mount.resident() <= budget + SLACK


def test_memory_stays_within_the_budget(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    chooser = random.Random(1)
    for number in range(FILES):
        (source / str(number)).write_bytes(chooser.randbytes(MIB) + bytes(MIB))
    with mounted(source, tmp_path / "m", "--budget=32M", f"--swap=s={SWAP}") as mount:
        work = Work(mount, 1)
        steps = [
            *[work.read] * 5,
            *[work.write] * 3,
            work.replace,
            *[work.swap_out] * 6,
            *[work.swap_in] * 3,
        ]
        for number in range(STEPS):
            work.random.choice(steps)()
            if number % 50 == 0:
                work.change_budget()
            work.sample()
        assert os.pread(work.swap_fd, SWAP, 0) == work.swap
        work.close()
        # It was as tight as it was meant to be.
        figures = mount.status()
        assert figures["reclaim"]["evicted_pgs"] > 1000
        assert figures["reclaim"]["cleaned_segments"] > 0
        assert min(work.refused.values()) > 0
        assert figures["failsafe"]["count"] == 0
