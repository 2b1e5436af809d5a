"""What fallocate(2) does to a file, it does to a file of a volume, and no stale page is left."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio
from account import check_account
from hypothesis import given, settings
from hypothesis import strategies as st
from page_data import run
from rig import ME, Rig, gate

from tmemfs.linux.syscalls import FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE, fallocate
from tmemfs.swap import volume as swap
from tmemfs.swap.volume import SwapVolume
from tmemfs.tmem import MIN_BUDGET, Core

PAGE = 4096
HOLE = FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE
MODES = (0, FALLOC_KEEP_SIZE, HOLE, FALLOC_ZERO_RANGE, FALLOC_ZERO_RANGE | FALLOC_KEEP_SIZE)
COLLAPSE, INSERT, UNSHARE = 8, 32, 64

RANGES = st.tuples(
    st.sampled_from(MODES),
    st.one_of(st.sampled_from([0, 1, PAGE - 1, PAGE, 4 * PAGE]), st.integers(0, 16 * PAGE)),
    st.one_of(st.sampled_from([1, PAGE, PAGE + 1, 3 * PAGE]), st.integers(1, 16 * PAGE)),
)


async def refusal(call: Callable[..., object], *arguments: object) -> str | None:
    """The name of the errno with which an async call fails, None when it does not."""
    try:
        await call(*arguments)  # type: ignore[misc]
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return None


# -- swap volumes -----------------------------------------------------------------------------

SIZE = 12 * PAGE


@pytest.fixture
def core() -> Iterator[Core]:
    core = Core(MIN_BUDGET)
    yield core
    check_account(core)
    core.close()


def swap_volume(core: Core, size: int = SIZE) -> SwapVolume:
    pool = core.new_client("test").new_pool("swap0", kind="persistent", page_size=PAGE)
    return SwapVolume("swap0", size, pool)


def pages_of(core: Core) -> int:
    return sum(int(pool["pages"]) for pool in core.statistics()["pools"])


@settings(max_examples=150)
@given(ranges=st.lists(RANGES, max_size=6), slice_pages=st.sampled_from([1, 3, 4096]))
async def test_a_swap_volume_is_like_a_file(ranges: list, slice_pages: int) -> None:
    """A file of that size whose filesystem has no block to spare behind its end."""
    core = Core(MIN_BUDGET)
    volume = swap_volume(core)
    volume.write(0, run(1, SIZE // PAGE))
    before, swap._FLUSH_PAGES = swap._FLUSH_PAGES, slice_pages
    try:
        with TemporaryDirectory() as name, open(Path(name, "f"), "w+b") as file:
            file.write(run(1, SIZE // PAGE))
            file.flush()
            for mode, offset, length in ranges:
                if offset + length > SIZE and mode != HOLE:
                    assert await refusal(volume.fallocate, mode, offset, length) == "ENOSPC"
                else:
                    await volume.fallocate(mode, offset, length)
                    fallocate(file.fileno(), mode, offset, length)
                assert bytes(volume.read(0, SIZE)) == os.pread(file.fileno(), 2 * SIZE, 0)
    finally:
        swap._FLUSH_PAGES = before
    check_account(core)
    core.close()


@pytest.mark.parametrize("mode", [HOLE, FALLOC_ZERO_RANGE])
async def test_what_is_punched_out_of_swap_takes_nothing(core: Core, mode: int) -> None:
    volume = swap_volume(core)
    volume.write(0, run(2, SIZE // PAGE))
    await volume.fallocate(mode, PAGE - 10, 3 * PAGE)
    assert pages_of(core) == SIZE // PAGE - 2
    await volume.fallocate(mode, 0, SIZE)
    assert pages_of(core) == 0
    assert core.statistics()["memory"]["compr_data_size"] == 0
    assert bytes(volume.read(0, SIZE)) == bytes(SIZE)


async def test_a_full_budget_lets_holes_be_made(core: Core) -> None:
    volume = swap_volume(core, 4096 * PAGE)
    written = 0
    with pytest.raises(OSError, match="space"):
        while True:
            written += volume.write(written, run(written, 16))
    assert await refusal(volume.fallocate, HOLE, 0, 16 * PAGE) is None
    assert await refusal(volume.fallocate, 0, 0, 4096 * PAGE) is None
    assert pages_of(core) == written // PAGE - 16
    await volume.fallocate(HOLE, 0, 4096 * PAGE)
    assert volume.write(0, run(3, 16)) == 16 * PAGE


async def test_a_large_hole_lets_others_through(
    core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swap, "_FLUSH_PAGES", 4)
    volume = swap_volume(core)
    volume.write(0, run(4, SIZE // PAGE))
    seen = []

    async def look() -> None:
        while len(seen) < 3:
            seen.append(pages_of(core))
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        nursery.start_soon(volume.fallocate, HOLE, 0, SIZE)
    assert len(set(seen)) > 1, "somebody saw a half of it"
    assert pages_of(core) == 0


@pytest.mark.parametrize("mode", [COLLAPSE, INSERT, UNSHARE, HOLE | COLLAPSE])
async def test_what_moves_bytes_is_refused(core: Core, rig: Rig, mode: int) -> None:
    volume = swap_volume(core)
    volume.write(0, run(5, SIZE // PAGE))
    assert await refusal(volume.fallocate, mode, 0, PAGE) == "ENOTSUP"
    assert bytes(volume.read(0, SIZE)) == run(5, SIZE // PAGE)
    file = await rig.create("f", run(5, 3))
    pages = rig.pages()
    assert await refusal(rig.volume.fallocate, file, mode, 0, PAGE, ME) == "ENOTSUP"
    assert rig.pages() == pages
    await rig.volume.release(file)


# -- cache volumes ----------------------------------------------------------------------------


@settings(max_examples=80)
@given(ranges=st.lists(RANGES, max_size=6), page_size=st.sampled_from([PAGE, 4 * PAGE]))
async def test_a_file_of_a_cache_volume_is_like_a_file(ranges: list, page_size: int) -> None:
    content = run(6, 10) + b"an end"
    with TemporaryDirectory() as name, open(Path(name, "bare"), "w+b") as bare:
        bare.write(content)
        bare.flush()
        (Path(name) / "source").mkdir()
        rig = Rig(Path(name) / "source", page_size=page_size)
        try:
            file = await rig.create("f", content)
            for arguments in ranges:
                fallocate(bare.fileno(), *arguments)
                await rig.volume.fallocate(file, *arguments, ME)
                assert await rig.read_pages(file) == Path(name, "bare").read_bytes()
            await rig.volume.release(file)
            assert await rig.read_anew("f") == Path(name, "bare").read_bytes()
        finally:
            rig.close()


@pytest.mark.parametrize("mode", [HOLE, FALLOC_ZERO_RANGE])
async def test_a_hole_passes_a_read_miss(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    rig.volume.executor._cannot_ask.add(os.stat(rig.root).st_dev)
    (rig.root / "f").write_bytes(run(7, 4))
    file = await rig.open("f")
    async with trio.open_nursery() as nursery:
        with gate(monkeypatch, "_read_all") as reading:
            nursery.start_soon(rig.read, file)
            await reading.reached.wait()  # the old bytes have been read, and not been put
            await rig.volume.fallocate(file, mode, PAGE, 2 * PAGE, ME)
    assert await rig.read_pages(file) == run(7, 1) + bytes(2 * PAGE) + run(10, 1)
    await rig.volume.release(file)


@pytest.mark.parametrize("before", [True, False], ids=["before it is made", "after it was made"])
async def test_a_read_passes_a_hole(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    (rig.root / "f").write_bytes(run(8, 4))
    file = await rig.open("f")
    await rig.read(file)
    async with trio.open_nursery() as nursery:
        with gate(monkeypatch, "fallocate", before=before) as punching:
            nursery.start_soon(rig.volume.fallocate, file, HOLE, PAGE, 2 * PAGE, ME)
            await punching.reached.wait()
            assert await rig.read(file) == (rig.root / "f").read_bytes()
    assert await rig.read_pages(file) == run(8, 1) + bytes(2 * PAGE) + run(11, 1)
    await rig.volume.release(file)


async def test_a_write_passes_a_hole(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    (rig.root / "f").write_bytes(run(9, 4))
    file = await rig.open("f")
    async with trio.open_nursery() as nursery:
        with gate(monkeypatch, "fallocate", before=True) as punching:
            nursery.start_soon(rig.volume.fallocate, file, HOLE, 0, 2 * PAGE, ME)
            await punching.reached.wait()
            await rig.volume.write(file, PAGE, run(20, 2), ME)
    assert await rig.read_pages(file) == (rig.root / "f").read_bytes()
    assert (rig.root / "f").read_bytes()[: 2 * PAGE] == bytes(2 * PAGE)
    await rig.volume.release(file)


@pytest.mark.parametrize("during", ["as it fails", "as it is cancelled"])
async def test_a_change_that_fails_leaves_no_old_page(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, during: str
) -> None:
    (rig.root / "f").write_bytes(run(12, 4))
    file = await rig.open("f")
    await rig.read(file)
    if during == "as it fails":

        def fail(fd: int, *_: int) -> None:
            os.pwrite(fd, b"half of it", PAGE)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        with monkeypatch.context() as patch:
            patch.setattr("tmemfs.cachefs.volume.fallocate", fail)
            assert await refusal(rig.volume.fallocate, file, HOLE, PAGE, PAGE, ME) == "EIO"
    else:
        async with trio.open_nursery() as nursery:
            with gate(monkeypatch, "fallocate") as punching:
                nursery.start_soon(rig.volume.fallocate, file, HOLE, PAGE, PAGE, ME)
                await punching.reached.wait()
                nursery.cancel_scope.cancel()
                punching.open()
    assert file.data.changing == 0
    assert await rig.read_pages(file) == (rig.root / "f").read_bytes() != run(12, 4)
    await rig.volume.release(file)


async def test_the_end_that_the_kernel_is_told_moves_along(rig: Rig) -> None:
    """It appends at the end that it was told of, and there only is an append one."""
    (rig.root / "f").touch()
    file = await rig.open("f", os.O_RDWR | os.O_APPEND)
    told = file.inode.kernel_size
    await rig.volume.fallocate(file, FALLOC_KEEP_SIZE, 0, 3 * PAGE, ME)
    assert (file.inode.kernel_size, file.data.size) == (told, 0)
    await rig.volume.fallocate(file, 0, 0, 3 * PAGE, ME)
    assert (file.inode.kernel_size, file.data.size) == (3 * PAGE, 3 * PAGE)
    await rig.volume.write(file, 3 * PAGE, b"appended", ME)
    assert (rig.root / "f").read_bytes() == bytes(3 * PAGE) + b"appended"
    await rig.volume.release(file)
