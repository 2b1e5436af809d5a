"""A thousand processes at once; a budget that shrinks under load: every byte is right."""

import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from file_work import Reader, Writer, digest, make_files
from mounting import Mounted, drop_kernel_caches, mounted, wait_for

pytestmark = pytest.mark.root

MIB = 1 << 20
CHILDREN = 1000
SLACK = 160 * MIB  # what the daemon has besides its budget, crowded


class Crowd:
    """Children that all wait for one word, each to read files of *place* by a seed of its own."""

    def __init__(self, place: Path, digests: dict[str, bytes]) -> None:
        self._place = place
        self._digests = digests
        self._children: list[int] = []
        self._gate, self._key = os.pipe()
        for seed in range(CHILDREN):
            pid = os.fork()
            if pid == 0:
                os.close(self._key)
                os._exit(self._child(seed))
            self._children.append(pid)
        os.close(self._gate)

    def go(self) -> list[int]:
        """Let them go; the seeds of those that saw anything but the right bytes."""
        os.close(self._key)
        self._key = -1
        failed = [seed for seed, pid in enumerate(self._children) if os.waitpid(pid, 0)[1] != 0]
        self._children.clear()
        return failed

    def close(self) -> None:
        """End those that are left."""
        if self._key >= 0:
            os.close(self._key)
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def _child(self, seed: int) -> int:
        try:
            os.read(self._gate, 1)  # the end of the file, when the last key is gone
            chooser = random.Random(seed)
            name = chooser.choice(list(self._digests))
            # Half of them past the kernel's cache.
            fd = os.open(self._place / name, os.O_RDONLY | (os.O_DIRECT if seed % 2 else 0))
            size = os.fstat(fd).st_size
            for _ in ("cold", "warm"):
                content = b"".join(os.pread(fd, 65536, at) for at in range(0, size, 65536))
                assert digest(content) == self._digests[name]
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            for _ in range(3):
                start = chooser.randrange(size)
                assert os.pread(fd, 10_000, start) == content[start : start + 10_000]
        except BaseException:
            return 1
        return 0


@contextmanager
def crowd(place: Path, digests: dict[str, bytes]) -> Iterator[Crowd]:
    made = Crowd(place, digests)
    try:
        yield made
    finally:
        made.close()


def test_a_thousand_processes_read_at_once(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    chooser = random.Random(1)
    digests = {}
    for number in range(64):
        data = chooser.randbytes(chooser.randrange(1000, 100_000))
        (source / f"file{number}").write_bytes(data)
        digests[f"file{number}"] = digest(data)
    with mounted(source, tmp_path / "m", "--budget=32M") as mount:
        with crowd(mount.path, digests) as children:
            drop_kernel_caches()
            assert children.go() == []
        found = mount.status()
        assert found["failsafe"]["count"] == 0
        wait_for("all files are closed", lambda: not _open_files(mount))


def _open_files(mount: Mounted) -> int:
    # Its own figures are not a file of the volume.
    return int(mount.status()["cache"]["open_files"])


def test_the_budget_shrinks_to_16_mib_under_load(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    digests = make_files(source, 48 * MIB)
    with mounted(source, tmp_path / "m", "--budget=96M") as mount:
        readers = [Reader(mount.path, digests, seed) for seed in range(2)]
        writer = Writer(mount.path, source, 9)
        works = [*readers, writer]

        def budget(size: int) -> None:
            (mount.control / "budget").write_text(f"{size >> 20}M")
            memory = mount.status()["memory"]
            assert memory["mem_limit"] == size
            used = memory["mem_used_total"] + memory["metadata_bytes"]
            assert used <= size + memory["segment_size"]
            steps = [work.steps for work in works]
            for work, before in zip(works, steps, strict=True):
                wait_for("it works on", lambda w=work, b=before: w.check() or w.steps >= b + 3)
            assert mount.resident() <= size + SLACK

        with readers[0].working(), readers[1].working(), writer.working():
            wait_for("the pool has much", lambda: mount.pool("cache")["pages"] * 8192 > 40 * MIB)
            for _ in range(2):
                budget(16 * MIB)
                budget(96 * MIB)
            budget(16 * MIB)
        figures = mount.status()
        assert figures["reclaim"]["evicted_pgs"] > 0
        assert figures["failsafe"]["count"] == 0
