"""Swap volumes written and discarded by the lane, on real mounts."""

import errno
import os
import random
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from lane_files import PAGE, Direct, content, direct, lane, until_answered
from mounting import Mounted, mounted, wait_for
from page_data import page, run

from tmemfs.linux.syscalls import FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, fallocate
from tmemfs.native import load
from tmemfs.native.memory import SharedMemory

pytestmark = pytest.mark.root

MIB = 1 << 20


@pytest.fixture
def mount(tmp_path: Path, source: Path) -> Iterator[Mounted]:
    with mounted(source, tmp_path / "m", "--budget=32M", "--swap=s=16M") as made:
        yield made


def swap(mount: Mounted) -> Path:
    return mount.control / "swap" / "s"


def punch(fd: int, offset: int, length: int) -> None:
    fallocate(fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, offset, length)


def test_what_is_written_is_read(mount: Mounted) -> None:
    with direct(swap(mount), os.O_RDWR) as file:
        until_answered(mount, lambda: [file.write(i * PAGE, content(i, 1)) for i in range(16)])
        before = lane(mount)
        for length in (1, 3, 64, 200):
            data = content(length, length)
            file.write(5 * PAGE, data)
            assert file.read(5 * PAGE, len(data)) == data
        assert lane(mount)["answered"] > before["answered"]


def test_it_is_counted_as_python_counts_it(mount: Mounted) -> None:
    """Each page is a put that was good; one that was there is replaced, and zeros are flushed."""
    with direct(swap(mount), os.O_RDWR) as file:
        until_answered(mount, lambda: [file.write(0, page(i)) for i in range(16)])
        before, answered = mount.pool("s"), lane(mount)["answered"]
        for i in range(10):
            file.write((1 + 2 * i) * PAGE, page(i, kind="text") + page(i, kind="word"))
        for i in range(10):
            file.write((1 + 2 * i) * PAGE, page(i + 1) + bytes(PAGE))
        punch(file.fd, PAGE, 4 * PAGE)
        now = mount.pool("s")
        assert lane(mount)["answered"] > answered + 10
    assert now["puts"] - before["puts"] == now["good_puts"] - before["good_puts"] == 30
    assert now["dup_puts_replaced"] - before["dup_puts_replaced"] == 10
    assert now["flushs"] - before["flushs"] == 11
    assert now["flushs_found"] - before["flushs_found"] == 12
    assert now["pages"] == before["pages"] + 8
    assert now["puts"] == now["good_puts"] + now["no_mem_puts"] + now["bad_puts"]


def test_what_is_discarded_takes_nothing(mount: Mounted) -> None:
    data = run(1, 256)
    with direct(swap(mount), os.O_RDWR) as file:
        file.write(0, data)
        full = mount.pool("s")
        assert full["pages"] == 256
        assert full["compr_data_size"] >= len(data)  # nothing is left in the stage
        for start in range(0, len(data), 64 * PAGE):
            punch(file.fd, start, 64 * PAGE)
        assert file.read(0, len(data)) == bytes(len(data))
    now = mount.pool("s")
    assert now["pages"] == now["compr_data_size"] == 0
    # But for what is a head, maybe.
    assert now["mem_used_total"] <= mount.status()["memory"]["segment_size"]


@pytest.mark.parametrize("overflow", [False, True])
def test_four_at_once_beside_a_model(tmp_path: Path, source: Path, overflow: bool) -> None:
    """Writes, discards and reads of all sizes, while the figures hold and memory is reclaimed."""
    size = 24 * MIB if overflow else 8 * MIB
    options = [f"--swap=s={size}", "--budget=16M"]
    if overflow:
        options.append(f"--overflow=s={tmp_path / 'overflow'}")
    share = size // PAGE // 4
    wrong: list[str] = []

    def work(number: int, file: Direct) -> None:
        chance, first, expected = random.Random(number), number * share, bytearray(share * PAGE)
        for step in range(300):
            count = chance.choice((1, 1, 1, 2, 16, 64, 100))
            place = chance.randrange(share - count + 1)
            at, end, what = place * PAGE, (place + count) * PAGE, chance.randrange(8)
            if what < 4:
                expected[at:end] = content(chance.randrange(1000), count)
                file.write(first * PAGE + at, bytes(expected[at:end]))
            elif what < 5:
                punch(file.fd, first * PAGE + at, end - at)
                expected[at:end] = bytes(end - at)
            elif file.read(first * PAGE + at, end - at) != expected[at:end]:
                wrong.append(f"{number}, step {step}: pages {place} to {place + count}")

    with mounted(source, tmp_path / "m", *options) as mount, direct(swap(mount), os.O_RDWR) as one:
        # It is open for writing once; each has memory of its own.
        files = [one.again() for _ in range(4)]
        threads = [threading.Thread(target=work, args=each) for each in enumerate(files)]
        for thread in threads:
            thread.start()
        with direct(mount.path / "file") as beside:
            while any(thread.is_alive() for thread in threads):
                beside.read(0, MIB)
                status = mount.status()
                memory, pool = status["memory"], status["pools"][1]
                assert pool["puts"] == pool["good_puts"] + pool["no_mem_puts"] + pool["bad_puts"]
                assert pool["found_gets"] <= pool["gets"]
                charged = memory["mem_used_total"] + memory["metadata_bytes"]
                assert charged <= memory["mem_limit"]
        for thread, file in zip(threads, files, strict=True):
            thread.join()
            file.close()
        assert not wrong
        assert lane(mount)["answered"] > 400
        assert mount.status()["failsafe"]["count"] == 0


# Else whoever asks for figures has the stage emptied.
_SETTLES_NOTHING = (
    "from tmemfs.swap.volumes import SwapVolumes\nSwapVolumes.settle = lambda self: None\n"
)


def waiting(mount: Mounted) -> int:
    """Bytes that are acknowledged and not compressed yet."""
    return int(mount.status()["swaps"][0]["write_buffer_bytes"])


def fill_up(file: Direct) -> dict[int, bytes]:
    """Write until the budget is full; return what was acknowledged, by its first page."""
    written = {}
    with pytest.raises(OSError, match="No space left"):
        for index in range(0, 32 * MIB // PAGE, 16):
            file.write(index * PAGE, run(index, 16))
            written[index] = run(index, 16)
    return written


@pytest.mark.parametrize("who", ["the lane", "Python"])
def test_what_was_acknowledged_stays_when_the_budget_is_full(
    tmp_path: Path, source: Path, who: str
) -> None:
    """Also what is in the stage then; and it finds its place once *who* has made room."""
    options = ("--budget=8M", "--swap=s=32M")
    with (
        mounted(source, tmp_path / "m", *options, before=_SETTLES_NOTHING) as mount,
        direct(swap(mount), os.O_RDWR) as file,
    ):
        expected = fill_up(file)
        assert len(expected) * 16 * PAGE > 6 * MIB
        assert waiting(mount) > 0
        for index, data in expected.items():
            assert file.read(index * PAGE, len(data)) == data
        for index in list(expected)[:72]:
            if who == "the lane":
                punch(file.fd, index * PAGE, 16 * PAGE)
            expected[index] = bytes(16 * PAGE)
        if who == "Python":  # which has what is larger than 4 MiB
            punch(file.fd, 0, 72 * 16 * PAGE)
        wait_for("the stage is empty", lambda: waiting(mount) == 0)
        file.write(0, run(-1, 16))
        expected[0] = run(-1, 16)
        for index, data in expected.items():
            assert file.read(index * PAGE, len(data)) == data


def test_nobody_goes_round_while_the_budget_is_full(tmp_path: Path, source: Path) -> None:
    """What has no room is tried again when there may be some, not again and again."""
    options = ("--budget=8M", "--swap=s=32M")
    with (
        mounted(source, tmp_path / "m", *options, before=_SETTLES_NOTHING) as mount,
        direct(swap(mount), os.O_RDWR) as file,
    ):
        fill_up(file)
        assert waiting(mount) > 0
        before = mount.status()["reclaim"]["pool_limit_hit"]
        for _ in range(1000):
            os.stat(mount.control)
            file.read(0, PAGE)
        assert mount.status()["reclaim"]["pool_limit_hit"] - before < 10


@pytest.mark.parametrize("overflow", [False, True])
def test_a_part_of_a_page_takes_nothing_of_the_rest_with_it(
    tmp_path: Path, source: Path, overflow: bool
) -> None:
    """Python reads, changes and puts it, in steps and with an overflow file in more than one go."""
    options = ["--swap=s=32M", "--budget=8M"]
    if overflow:
        options.append(f"--overflow=s={tmp_path / 'overflow'}")
    pages, part, stop = (1024 if overflow else 256), 512, threading.Event()
    lost: list[str] = []

    def write_parts(file: Direct) -> None:
        chance = random.Random(1)
        while not stop.is_set():
            file.write(chance.randrange(pages) * PAGE, chance.randbytes(part))

    with (
        mounted(source, tmp_path / "m", *options) as mount,
        direct(swap(mount), os.O_RDWR) as file,
        closing(file.again()) as other,
    ):
        if overflow:
            for start in range(0, 4 * pages, 64):  # the first of them leave memory
                file.write(start * PAGE, run(start, 64))
            wait_for("pages overflow", lambda: mount.pool("s")["overflow_pages"] > 0)
        writer = threading.Thread(target=write_parts, args=(other,))
        writer.start()
        chance = random.Random(2)
        for step in range(2000):
            at, data = chance.randrange(pages) * PAGE, page(step)
            file.write(at, data)
            if file.read(at, PAGE)[part:] != data[part:]:
                lost.append(f"step {step}: page {at // PAGE}")
        stop.set()
        writer.join()
        assert not lost
        assert lane(mount)["answered"] > 500


def test_another_budget_while_pages_wait_in_the_stage(tmp_path: Path, source: Path) -> None:
    """A smaller one is refused or done; either way every page is what it was."""
    with (
        mounted(source, tmp_path / "m", "--budget=32M", "--swap=s=16M") as mount,
        direct(swap(mount), os.O_RDWR) as file,
    ):
        done = 0
        for step, budget in enumerate(("24M", "4M", "16M", "5M", "32M") * 4):
            data = run(step * 1000, 200)
            for start in range(0, 200, 50):
                file.write(start * PAGE, data[start * PAGE : (start + 50) * PAGE])
            try:
                (mount.control / "budget").write_text(budget)
                done += 1
            except OSError as error:
                assert error.errno == errno.EBUSY
            assert file.read(0, len(data)) == data
            memory = mount.status()["memory"]
            assert memory["mem_used_total"] + memory["metadata_bytes"] <= memory["mem_limit"]
        assert done > 8
        file.write(200 * PAGE, run(-1, 200))
        for start in range(400, 1400, 200):
            file.write(start * PAGE, run(start, 200))
        with pytest.raises(OSError, match="busy"):
            (mount.control / "budget").write_text("4M")
        assert file.read(200 * PAGE, 200 * PAGE) == run(-1, 200)


def test_python_that_is_busy_is_waited_for(tmp_path: Path, source: Path) -> None:
    """It has the turn: a write waits, but reads are answered meanwhile."""
    before = (
        "import time\n"
        "from tmemfs.swap.writebuffer import WriteBuffer\n"
        "write = WriteBuffer.write\n"
        "def slow(self, offset, buf):\n"
        "    end = time.monotonic() + 1\n"
        "    while time.monotonic() < end: pass\n"
        "    return write(self, offset, buf)\n"
        "WriteBuffer.write = slow\n"
    )
    options = ("--budget=32M", "--swap=s=16M")
    with (
        mounted(source, tmp_path / "m", *options, before=before) as mount,
        direct(swap(mount), os.O_RDWR) as file,
        direct(swap(mount)) as reader,
        closing(file.again()) as one,
        closing(file.again()) as other,
    ):
        until_answered(mount, lambda: [file.write(0, page(i)) for i in range(16)])
        file.write(PAGE, page(1))
        # What is no whole page is Python's.
        writers = [
            threading.Thread(target=one.write, args=(2 * PAGE, page(2)[:512])),
            threading.Thread(target=other.write, args=(0, page(-1))),
        ]
        for writer in writers:
            writer.start()
        found = 0
        while writers[0].is_alive():
            assert reader.read(PAGE, PAGE) == page(1)
            found += writers[1].is_alive()
        assert found > 10
        writers[1].join()
        assert reader.read(0, 3 * PAGE) == page(-1) + page(1) + page(2)[:512] + bytes(PAGE - 512)


def test_figures_come_while_somebody_writes_without_end(mount: Mounted) -> None:
    stop = threading.Event()

    def write(file: Direct) -> None:
        with suppress(OSError):
            while not stop.is_set():
                file.write(0, content(1, 64))

    with direct(swap(mount), os.O_RDWR) as file:
        writer = threading.Thread(target=write, args=(file,))
        writer.start()
        try:
            for _ in range(50):
                assert mount.pool("s")["pages"] <= 64
        finally:
            stop.set()
            writer.join()


def test_it_is_killed_under_load(tmp_path: Path, source: Path) -> None:
    """Nobody hangs: who writes is told that the mount has gone."""
    with mounted(source, tmp_path / "m", "--budget=32M", "--swap=s=16M") as mount:
        said: list[int | None] = []

        def write(file: Direct) -> None:
            try:
                while True:
                    file.write(0, content(1, 64))
            except OSError as error:
                said.append(error.errno)

        with direct(swap(mount), os.O_RDWR) as file:
            files = [file.again() for _ in range(3)]
            threads = [threading.Thread(target=write, args=(each,)) for each in files]
            for thread in threads:
                thread.start()
            wait_for("the lane answers", lambda: lane(mount)["answered"] > 200)
            mount.kill()
            for thread, each in zip(threads, files, strict=True):
                thread.join()
                each.close()
        assert set(said) <= {errno.ENOTCONN, errno.ECONNABORTED}


def test_without_a_turn_all_is_left_to_python() -> None:
    """Who never lets others have it, as a program that is not trio's, keeps the store to itself."""
    assert load.extension is not None
    size, segment = MIB, 128 << 10
    tables = load.extension.tables_size(size, segment)
    memory = SharedMemory(size + tables)
    store = load.extension.Store(memory.map, tables, segment, memory.fd)
    turn = load.extension.Turn(store)
    turn.after_io_wait(0.0)  # it is ours from the start, so that this returns
    turn.before_io_wait(0.0)
    turn.before_io_wait(0.0)
    turn.after_io_wait(0.0)
    store.close()
    turn.before_io_wait(0.0)
    turn.after_io_wait(0.0)
    memory.close()
