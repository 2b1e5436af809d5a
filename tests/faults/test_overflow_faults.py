"""T17, the overflow's part: its file is damaged, or its device fails. EIO, never wrong bytes.

The failing device is real, a loop device: reads fail beyond the end of its backing file, and writes
where the filesystem of that has no space for them.
"""

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from account import check_account
from as_root import tmpfs_at
from overflow_rig import (
    PAGE,
    OverflowRig,
    damage,
    nothing_leaves,
    overflow_rig,
    overflowed,
    pages,
    push_out,
    read,
    write,
)
from page_data import page, run

from tmemfs.swap.overflowing import OverflowingSwapVolume
from tmemfs.swap.slots import FIRST
from tmemfs.tmem import MIN_BUDGET

MIB = 1 << 20
BUDGET_PAGES = MIN_BUDGET // PAGE


class Disk:
    """A block device that can be made to fail, and mended."""

    def __init__(self, place: Path, size: int) -> None:
        self._place = place
        self._file = place / "disk"
        self._size = size
        self._file.touch()
        self.mend()
        command = ["losetup", "--find", "--show", str(self._file)]
        self.device = subprocess.check_output(command, text=True).strip()

    def fail_reads(self, offset: int) -> None:
        """From now on, reads from `offset` on fail; what is there is lost."""
        os.truncate(self._file, offset)

    def fail_writes(self, offset: int) -> None:
        """From now on, writes from `offset` on fail, where nothing has been written yet."""
        with open(self._file, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, offset)
        self._limit(os.stat(self._file).st_blocks * 512)

    def mend(self) -> None:
        """All of it works; what had been cut off is zeros."""
        self._limit(4 * self._size)
        os.truncate(self._file, self._size)

    def _limit(self, size: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", self._place], check=True)


@pytest.fixture
def new_disk(tmp_path: Path) -> Iterator[Callable[[int], Disk]]:
    """Makes a disk of so many bytes."""
    with tmpfs_at(tmp_path / "of the disk") as place, ExitStack() as stack:

        def make(size: int) -> Disk:
            disk = Disk(place, size)
            stack.callback(subprocess.run, ["losetup", "--detach", disk.device], check=True)
            return disk

        yield make


async def fails(volume: OverflowingSwapVolume, offset: int, data: int | bytes) -> int | None:
    """Read `data` bytes, or write them: the error."""
    with pytest.raises(OSError, match=r"\w") as caught:
        if isinstance(data, int):
            await read(volume, offset, data)
        else:
            await write(volume, offset, data)
    return caught.value.errno


async def fill(rig: OverflowRig, volume: OverflowingSwapVolume) -> None:
    for first in range(0, volume.size // PAGE, 64):
        await write(volume, first * PAGE, run(first, 64))


# --- a damaged slot ------------------------------------------------------------------------------


@pytest.mark.expects_log("slot 10 has a wrong checksum")
async def test_a_damaged_slot_is_an_error_for_its_page_alone(tmp_path: Path) -> None:
    async with overflow_rig(tmp_path) as rig:
        volume = rig.add(128 * PAGE)
        await fill(rig, volume)
        await push_out(rig, volume)
        damage(tmp_path / "swap0", 10)
        for _ in range(3):
            assert await fails(volume, 10 * PAGE, PAGE) == errno.EIO
            assert await fails(volume, 10 * PAGE + 5, 10) == errno.EIO
        assert volume.statistics()["overflow_errors"] == 6
        # A run ends before it, and goes on behind it.
        found = volume.read(8 * PAGE, 5 * PAGE)
        assert bytes(await found) == run(8, 2)  # type: ignore[misc]
        assert await read(volume, 0, 10 * PAGE) == run(0, 10)
        assert await read(volume, 11 * PAGE, 100 * PAGE) == run(11, 100)
        # A part cannot be written into what cannot be read, the whole page can.
        assert await fails(volume, 10 * PAGE + 5, b"part") == errno.EIO
        assert await fails(volume, 10 * PAGE - 5, b"reaches into it") == errno.EIO
        assert await read(volume, 0, 10 * PAGE) == run(0, 10)
        await write(volume, 10 * PAGE, page(500))
        assert await read(volume, 10 * PAGE, PAGE) == page(500)
        await push_out(rig, volume)
        assert await read(volume, 0, 128 * PAGE) == run(0, 10) + page(500) + run(11, 117)
        assert volume._pool.counters.corrupt_pages == 0


@pytest.mark.expects_log("slot 10 has a wrong checksum")
async def test_a_damaged_slot_that_nobody_wants_is_no_error(tmp_path: Path) -> None:
    """It is replaced as a whole, or given up."""
    async with overflow_rig(tmp_path) as rig:
        volume = rig.add(128 * PAGE)
        await fill(rig, volume)
        await push_out(rig, volume)
        for slot in (9, 10, 11, 12):
            damage(tmp_path / "swap0", slot)
        # The ends of the write are read, what lies between them is not.
        await write(volume, 8 * PAGE + 100, b"x" * 5 * PAGE)
        await push_out(rig, volume)
        model = run(8, 1)[:100] + b"x" * 5 * PAGE + run(13, 1)[100:]
        assert await read(volume, 8 * PAGE, 6 * PAGE) == model
        assert volume.statistics()["overflow_errors"] == 0
        damage(tmp_path / "swap0", 10)
        assert await fails(volume, 10 * PAGE, PAGE) == errno.EIO
        await volume.fallocate(3, 10 * PAGE, PAGE)
        assert await read(volume, 10 * PAGE, PAGE) == bytes(PAGE)
        assert volume.statistics()["overflow_errors"] == 1


@pytest.mark.expects_log("has a wrong checksum")
async def test_pages_in_each_others_slots(tmp_path: Path) -> None:
    """A good page in a wrong place is a wrong page."""
    async with overflow_rig(tmp_path) as rig:
        volume = rig.add(64 * PAGE)
        await fill(rig, volume)
        await push_out(rig, volume)
        with open(tmp_path / "swap0", "r+b") as file:
            os.pwrite(file.fileno(), page(6) + page(5), FIRST + 5 * PAGE)
        assert await fails(volume, 5 * PAGE, PAGE) == errno.EIO
        assert await fails(volume, 6 * PAGE, PAGE) == errno.EIO
        assert await read(volume, 7 * PAGE, PAGE) == page(7)


@pytest.mark.expects_log("has a wrong checksum", "(no more of these)")
async def test_the_log_is_not_filled_with_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with overflow_rig(tmp_path) as rig:
        volume = rig.add(64 * PAGE)
        await fill(rig, volume)
        await push_out(rig, volume)
        for slot in range(64):
            damage(tmp_path / "swap0", slot)
            assert await fails(volume, slot * PAGE, PAGE) == errno.EIO
        assert volume.statistics()["overflow_errors"] == 64
        assert len(caplog.records) == 10


@pytest.mark.expects_log("slot 40 not read")
async def test_a_file_that_was_cut_short(tmp_path: Path) -> None:
    """Reads beyond its end are short; writes make it longer again."""
    async with overflow_rig(tmp_path) as rig:
        volume = rig.add(64 * PAGE)
        await fill(rig, volume)
        await push_out(rig, volume)
        os.truncate(tmp_path / "swap0", FIRST + 40 * PAGE)
        assert await read(volume, 0, 40 * PAGE) == run(0, 40)
        assert await fails(volume, 40 * PAGE, PAGE) == errno.EIO
        await write(volume, 40 * PAGE, run(40, 24))
        await push_out(rig, volume)
        assert await read(volume, 0, 64 * PAGE) == run(0, 64)


# --- a device that fails -------------------------------------------------------------------------


@pytest.mark.root
@pytest.mark.expects_log("not read: Input/output error")
async def test_a_device_that_cannot_be_read(
    tmp_path: Path, new_disk: Callable[[int], Disk]
) -> None:
    """EIO for the pages that are there; all the others are served."""
    disk = new_disk(4 * MIB)
    async with overflow_rig(tmp_path) as rig:
        volume = rig.add(256 * PAGE, disk.device)
        await fill(rig, volume)
        await push_out(rig, volume)
        disk.fail_reads(FIRST + 64 * PAGE)
        assert await fails(volume, 64 * PAGE, PAGE) == errno.EIO
        assert await fails(volume, 200 * PAGE, PAGE) == errno.EIO
        found = volume.read(0, 256 * PAGE)
        assert bytes(await found) == run(0, 64)  # type: ignore[misc]
        assert volume.statistics()["overflow_errors"] == 3
        # Whole pages can be replaced.
        await write(volume, 200 * PAGE, page(999))
        assert await read(volume, 200 * PAGE, PAGE) == page(999)
        await nothing_leaves(rig)
        check_account(rig.core)
        # What had been cut off is lost, and that is seen.
        disk.mend()
        assert await read(volume, 200 * PAGE, PAGE) == page(999)
        await write(volume, 64 * PAGE, run(64, 192))
        await push_out(rig, volume)
        assert await read(volume, 0, 256 * PAGE) == run(0, 256)


@pytest.mark.root
@pytest.mark.expects_log("has a wrong checksum")
async def test_a_device_that_comes_back_empty(
    tmp_path: Path, new_disk: Callable[[int], Disk]
) -> None:
    disk = new_disk(4 * MIB)
    async with overflow_rig(tmp_path) as rig:
        volume = rig.add(256 * PAGE, disk.device)
        await fill(rig, volume)
        await push_out(rig, volume)
        disk.fail_reads(0)
        disk.mend()
        for index in (0, 100, 255):
            assert await fails(volume, index * PAGE, PAGE) == errno.EIO


@pytest.mark.root
@pytest.mark.expects_log("not written: No space left on device")
async def test_a_device_that_cannot_be_written(
    tmp_path: Path, new_disk: Callable[[int], Disk]
) -> None:
    """Pages stay in memory; when that is full, ENOSPC, and nothing is lost. Then it goes on."""
    count = 8 * BUDGET_PAGES
    model = bytearray(count * PAGE)
    disk = new_disk(count * PAGE + MIB)
    async with overflow_rig(tmp_path) as rig:
        volume = rig.add(count * PAGE, disk.device)
        disk.fail_writes(MIB)
        refused = 0
        for index in range(BUDGET_PAGES, 2 * BUDGET_PAGES):
            try:
                await write(volume, index * PAGE, page(index))
            except OSError as error:
                assert error.errno == errno.ENOSPC
                refused += 1
                if refused > 5:
                    break
            else:
                model[index * PAGE : (index + 1) * PAGE] = page(index)
        assert refused > 5
        assert volume.statistics()["overflow_writes"] == 0
        assert volume.statistics()["overflow_errors"] > 5
        assert volume._pool.statistics()["pages"] > BUDGET_PAGES * 0.6
        # Neither does what would have been replaced.
        assert await fails(volume, BUDGET_PAGES * PAGE, page(1)) == errno.ENOSPC
        assert await fails(volume, BUDGET_PAGES * PAGE + 5, b"part") == errno.ENOSPC
        first, last = BUDGET_PAGES * PAGE, 2 * BUDGET_PAGES * PAGE
        assert await read(volume, first, last - first) == model[first:last]
        await nothing_leaves(rig)
        check_account(rig.core)
        # Zeros take no room, and make some.
        await write(volume, first, bytes(200 * PAGE))
        model[first : first + 200 * PAGE] = bytes(200 * PAGE)
        await write(volume, last, page(1))
        model[last : last + PAGE] = page(1)
        disk.mend()
        for index in range(0, count, 3):
            await write(volume, index * PAGE, page(index + 7))
            model[index * PAGE : (index + 1) * PAGE] = page(index + 7)
        for at in range(0, count * PAGE, MIB):
            assert await read(volume, at, MIB) == model[at : at + MIB]
        assert volume.statistics()["overflow_pages"] > BUDGET_PAGES


@pytest.mark.root
@pytest.mark.expects_log("not written: No space left on device")
async def test_a_device_of_which_a_part_cannot_be_written(
    tmp_path: Path, new_disk: Callable[[int], Disk]
) -> None:
    """Other pages leave instead, and nobody loses anything."""
    count, bad = 8 * BUDGET_PAGES, 100
    disk = new_disk(count * PAGE + MIB)
    async with overflow_rig(tmp_path) as rig:
        volume = rig.add(count * PAGE, disk.device)
        disk.fail_writes(FIRST + (count - bad) * PAGE)
        for index in (*range(count - bad, count), *range(0, count - bad, 2)):
            await write(volume, index * PAGE, page(index))
        found = overflowed(volume)
        assert len(found) > 2 * BUDGET_PAGES
        assert max(found) < count - bad
        assert await read(volume, (count - bad) * PAGE, bad * PAGE) == pages(count - bad, bad)
        for index in range(0, count - bad, 2):
            assert await read(volume, index * PAGE, 2 * PAGE) == page(index) + bytes(PAGE)


@pytest.mark.root
@pytest.mark.expects_log("not written: No space left on device")
async def test_a_volume_whose_device_fails_is_not_in_the_way_of_another(
    tmp_path: Path, new_disk: Callable[[int], Disk]
) -> None:
    """It keeps the memory that it has, the other one goes on with the rest; mended, so does it."""
    disk = new_disk(16 * MIB)
    async with overflow_rig(tmp_path, 2 * MIN_BUDGET) as rig:
        failing, sound = rig.add(8 * MIB, disk.device), rig.add(16 * MIB)
        disk.fail_writes(FIRST)
        for index in range(BUDGET_PAGES):
            await write(failing, index * PAGE, page(index))
        for _ in range(2):
            for first in range(0, 4096, 256):
                await write(sound, first * PAGE, run(first, 256))
            for first in range(0, 4096, 256):
                assert await read(sound, first * PAGE, MIB) == run(first, 256)
        assert overflowed(failing) == []
        disk.mend()
        for index in range(BUDGET_PAGES, 4 * BUDGET_PAGES):
            await write(failing, index * PAGE, page(index))
        assert overflowed(failing)
        assert await read(failing, 0, 4 * BUDGET_PAGES * PAGE) == pages(0, 4 * BUDGET_PAGES)
