"""What is opened when, what is believed, and attributes that come late."""

import errno
import os
from collections.abc import Callable

import pytest
import trio
from page_data import run
from rig import FAR, LOCAL, ME, SECONDS, Rig, gate, left_alone

from tmemfs.cachefs.source import executor, opening

PAGE = 4096


@pytest.fixture
def far(new_rig: Callable[..., Rig]) -> Rig:
    return new_rig(kind=FAR, attr_ttl=60)


async def kept(rig: Rig, content: bytes) -> None:
    """A file whose pages are in the pool, and trusted."""
    (rig.root / "f").write_bytes(content)
    await rig.warm("f")


@pytest.mark.skipif(os.geteuid() != 0, reason="not root")
async def test_a_warm_open_on_a_disk_opens_nothing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = run(1, 4)
    await kept(rig, content)

    def refuse(*_: object) -> None:
        raise AssertionError("opened")

    with monkeypatch.context() as patch:
        patch.setattr(opening, "open_at_once", refuse)
        assert await rig.read_anew("f") == content
    assert rig.volume.statistics()["backing_reads"] == 1


async def test_a_warm_open_elsewhere_has_what_it_may_need(
    far: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = run(1, 4)
    await kept(far, content)
    file = await far.open("f", os.O_RDONLY)
    monkeypatch.setattr(opening, "open_and_read", None)
    far.pool.flush_object(file.data.object_id)
    assert await far.read(file) == content
    await far.volume.release(file)


async def test_a_small_file_is_read_as_soon_as_it_is_opened(far: Rig) -> None:
    content = run(11, 16)
    (far.root / "f").write_bytes(content)
    (far.root / "large").write_bytes(content + b"x")
    left_alone(far.root / "f")
    for name, pages in (("large", 0), ("f", 16)):
        file = await far.open(name, os.O_RDONLY)
        assert far.pages() == pages
        await far.volume.release(file)
    assert await far.read_anew("f") == content
    assert far.volume.statistics()["backing_reads"] == 1


async def test_a_file_that_cannot_be_read_can_be_opened(
    far: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    (far.root / "f").write_bytes(run(12, 2))

    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr("tmemfs.cachefs.source.executor._read_all", fail)
        file = await far.open("f", os.O_RDONLY)
        with pytest.raises(OSError, match="error"):
            await far.read(file)
    assert await far.read(file) == run(12, 2)
    await far.volume.release(file)


@pytest.mark.skipif(os.geteuid() != 0, reason="not root")
async def test_it_is_opened_when_something_is_missing(rig: Rig) -> None:
    content = run(2, 4)
    await kept(rig, content)
    file = await rig.open("f", os.O_RDONLY)
    assert file.backing_fd == file.inode.fd
    rig.pool.flush_page(file.data.object_id, 2)
    assert await rig.read(file) == content
    assert file.backing_fd == file.data.fd != file.inode.fd
    await rig.volume.release(file)


async def test_all_who_read_share_a_descriptor(far: Rig) -> None:
    (far.root / "f").write_bytes(run(3, 4))
    before = len(os.listdir("/proc/self/fd"))
    files = [await far.open("f", os.O_RDONLY) for _ in range(20)]
    for file in files:
        await far.read(file)
    assert len(os.listdir("/proc/self/fd")) == before + 2  # of the inode, and of the file
    for file in files:
        await far.volume.release(file)
    assert len(os.listdir("/proc/self/fd")) == before + 1


@pytest.mark.parametrize("kind", [LOCAL, FAR])
async def test_a_warm_file_whose_name_goes_is_read_on(
    new_rig: Callable[..., Rig], kind: str
) -> None:
    rig = new_rig(kind=kind)
    content = run(4, 4)
    await kept(rig, content)
    file = await rig.open("f", os.O_RDONLY)
    await rig.volume.modify.unlink(rig.volume.inodes.root, b"f", ME)
    rig.pool.flush_object(file.data.object_id)
    assert await rig.read(file) == content
    await rig.volume.release(file)
    assert rig.pages() == 0


async def test_attributes_from_before_a_write_do_not_undo_it(
    far: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    (far.root / "f").write_bytes(b"short")
    file = await far.open("f")
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            with gate(monkeypatch, "look") as looking:
                nursery.start_soon(far.names.lookup, far.volume.inodes.root, b"f")
                await looking.reached.wait()
                await far.volume.write(file, 5, b" and longer", ME)
    assert file.data.size == 16
    assert await far.read(file) == b"short and longer"
    await far.volume.release(file)


async def test_an_open_looks_again_after_a_write_that_passed_it(
    far: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    (far.root / "f").write_bytes(b"short")
    writer = await far.open("f")
    opened = []

    async def open_it() -> None:
        opened.append(await far.open("f", os.O_RDWR))

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            with gate(monkeypatch, "open_and_read") as being_opened:
                nursery.start_soon(open_it)
                await being_opened.reached.wait()
                await far.volume.write(writer, 0, b"much longer", ME)
                await far.volume.release(writer)
    assert await far.read(opened[0]) == b"much longer"
    await far.volume.release(opened[0])


async def test_overlapping_writes_over_a_network(far: Rig) -> None:
    content = run(5, 64)
    file = await far.create("f")
    async with trio.open_nursery() as nursery:
        for at in range(0, 64, 4):
            nursery.start_soon(
                far.volume.write, file, at * PAGE, content[at * PAGE : (at + 4) * PAGE], ME
            )
    assert await far.read(file) == content == (far.root / "f").read_bytes()
    await far.volume.release(file)


async def test_cache_none_looks_at_every_read(new_rig: Callable[..., Rig]) -> None:
    for kind in (LOCAL, FAR):
        rig = new_rig(kind=kind, mode="none", attr_ttl=60)
        await kept(rig, b"a" * 100)
        file = await rig.open("f", os.O_RDONLY)
        (rig.root / "f").write_bytes(b"b" * 100)
        assert await rig.read(file, 0, 10) == b"b" * 10
        await rig.volume.release(file)


async def test_cache_always_never_looks(new_rig: Callable[..., Rig]) -> None:
    rig = new_rig(mode="always")
    await kept(rig, b"a" * 100)
    (rig.root / "f").write_bytes(b"b" * 100)
    left_alone(rig.root / "f")
    assert await rig.keeps("f")
    assert await rig.read_anew("f") == b"a" * 100
    file = await rig.open("f")
    await rig.volume.write(file, 0, b"c" * 50, ME)  # its own changes it knows of
    assert (await rig.read(file))[:50] == b"c" * 50
    await rig.volume.release(file)


async def test_cache_always_shows_no_byte_that_never_was(new_rig: Callable[..., Rig]) -> None:
    """A size that has changed is noticed, whoever asks for it."""
    rig = new_rig(mode="always")
    await kept(rig, b"old")
    for is_open in (False, True):
        file = await rig.open("f", os.O_RDONLY) if is_open else None
        with open(rig.root / "f", "ab") as behind:
            behind.write(b" and longer")
        content = (rig.root / "f").read_bytes()
        await rig.inode("f")  # looks it up
        assert await rig.read_anew("f") == content
        if file is not None:
            await rig.volume.release(file)


async def test_the_end_is_looked_for_no_more_often_than_it_may_be_believed(
    new_rig: Callable[..., Rig],
) -> None:
    for attr_ttl, want in ((60, b"first"), (0, b"first and last")):
        rig = new_rig(kind=FAR, attr_ttl=attr_ttl)
        (rig.root / "f").write_bytes(b"first")
        file = await rig.open("f", os.O_RDONLY)
        assert await rig.read(file) == b"first"
        (rig.root / "f").write_bytes(b"first and last")
        assert await rig.read(file) == want
        await rig.volume.release(file)


async def test_an_inode_that_is_held_is_no_more_to_be_forgotten(
    new_rig: Callable[..., Rig],
) -> None:
    """It was pinned when the kernel forgot it, and is held; the next pin is not its last."""
    rig = new_rig(kind="fuse")
    await kept(rig, run(6, 2))
    inodes = rig.volume.inodes
    inode = await rig.inode("f")
    inodes.remember(inode)
    async with inode.open():
        inodes.forget(inode.number, 1)
    assert inode in inodes
    assert not inodes.descriptors.leaving
    assert await rig.inode("f") is inode
    inode.pin()
    inodes.descriptors.lose(inode)
    inode.unpin()
    assert inode in inodes


async def test_an_inode_that_is_held_is_found_again(new_rig: Callable[..., Rig]) -> None:
    rig = new_rig(kind="fuse")
    await kept(rig, run(6, 2))
    inodes = rig.volume.inodes
    inode = await rig.inode("f")
    inodes.abandon(inode)
    assert await rig.inode("f") is inode
    inodes.abandon(inode)
    # Until the descriptors run out.
    inodes.descriptors.limit = 0
    (rig.root / "g").write_bytes(b"")
    await rig.read_anew("g")
    assert await rig.inode("f") is not inode


# -- what a second reading found ----------------------------------------------------------------


async def test_a_change_of_ours_that_fails_hides_nobody_elses(rig: Rig) -> None:
    await kept(rig, b"a" * 8 * PAGE)
    file = await rig.open("f")
    with open(rig.root / "f", "r+b") as behind:
        behind.seek(7 * PAGE)
        behind.write(b"b" * PAGE)
    with pytest.raises(OSError, match="large"):
        await rig.volume.truncate(file, 1 << 62, ME)
    assert await rig.read(file) == (rig.root / "f").read_bytes()
    await rig.volume.release(file)


async def test_changes_of_ours_that_overlap_hide_nobody_elses(rig: Rig) -> None:
    await kept(rig, b"a" * 8 * PAGE)
    file = await rig.open("f")
    with open(rig.root / "f", "r+b") as behind:
        behind.seek(7 * PAGE)
        behind.write(b"b" * PAGE)
    async with trio.open_nursery() as nursery:
        for index in range(4):
            nursery.start_soon(rig.volume.write, file, index * PAGE, b"c" * PAGE, ME)
    assert await rig.read(file) == (rig.root / "f").read_bytes()
    await rig.volume.release(file)


async def test_a_small_file_that_changes_while_it_is_read(
    far: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = far.root / "f"
    path.write_bytes(b"a" * 100)
    left_alone(path)
    real = executor._read_all

    def read(*args: int) -> bytes:
        found = real(*args)
        path.write_bytes(b"b" * 100)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(executor, "_read_all", read)
        file = await far.open("f", os.O_RDONLY)
    assert await far.read(file) == b"b" * 100
    await far.volume.release(file)


@pytest.mark.parametrize("kind", [LOCAL, FAR])
async def test_no_zeros_where_a_file_is_cut_and_written_while_it_is_read(
    new_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    rig = new_rig(kind=kind)
    path = rig.root / "f"
    path.write_bytes(b"a" * 20 * PAGE)
    file = await rig.open("f", os.O_RDONLY)
    rig.volume.executor._cannot_ask.add(os.stat(path).st_dev)
    real = executor._read_all

    def read(*args: int) -> bytes:
        os.truncate(path, PAGE)
        found = real(*args)
        path.write_bytes(b"b" * 20 * PAGE)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(executor, "_read_all", read)
        found = await rig.read(file)
    assert found == b"a" * PAGE
    assert await rig.read(file) == b"b" * 20 * PAGE
    await rig.volume.release(file)


async def test_cache_always_notices_a_size_after_a_write_of_ours(
    new_rig: Callable[..., Rig],
) -> None:
    rig = new_rig(mode="always")
    file = await rig.create("f", b"a" * 1000)
    await rig.volume.release(file)
    with open(rig.root / "f", "ab") as behind:
        behind.write(b"b" * 1000)
    assert await rig.read_anew("f") == (rig.root / "f").read_bytes()


async def test_files_that_are_gone_are_not_held(new_rig: Callable[..., Rig]) -> None:
    rig = new_rig(kind="fuse")
    before = len(os.listdir("/proc/self/fd"))
    for number in range(50):
        (rig.root / f"f{number}").write_bytes(b"x")
        inode = await rig.inode(f"f{number}")
        await rig.read_anew(f"f{number}")
        await rig.volume.modify.unlink(rig.volume.inodes.root, f"f{number}".encode(), ME)
        rig.volume.inodes.abandon(inode)
    with trio.fail_after(SECONDS):
        while len(os.listdir("/proc/self/fd")) != before:
            await trio.sleep(0.001)


async def test_an_open_does_not_wait_for_a_writer_to_rest(
    far: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets in, and believes nothing that it has seen."""
    (far.root / "f").write_bytes(b"")
    writer = await far.open("f")
    real, count = os.fstat, 0
    token = trio.lowlevel.current_trio_token()

    def busy(fd: int) -> os.stat_result:
        """Each look is passed by a write."""
        nonlocal count
        info = real(fd)
        if fd not in (writer.fd, writer.inode.fd):
            count += 1
            trio.from_thread.run(far.volume.write, writer, count, b"x", ME, trio_token=token)
        return info

    with trio.fail_after(60), monkeypatch.context() as patch:
        patch.setattr("tmemfs.cachefs.handles.os.fstat", busy)
        file = await far.open("f", os.O_RDWR)
    assert count < 10
    assert await far.read(file) == (far.root / "f").read_bytes()
    for opened in (file, writer):
        await far.volume.release(opened)


@pytest.fixture
def by_path(new_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch) -> Rig:
    """As over sshfs, but for direct I/O, for which the disk below would want aligned buffers."""
    monkeypatch.setattr(opening, "read_past_kernel", lambda fd: None)
    return new_rig(kind="fuse.sshfs")


async def test_what_is_set_apart_stays_as_it_was(by_path: Rig) -> None:
    rig = by_path
    (rig.root / "f").write_bytes(b"A" * 8192)
    left_alone(rig.root / "f")
    file = await rig.open("f", os.O_RDONLY)
    (rig.root / "other").write_bytes(b"B")
    file.data.notice(os.stat(rig.root / "other"))
    assert file.data.apart
    file.data.notice(os.stat(rig.root / "other"))
    assert file.data.size == 8192
    assert await rig.read(file, 0, 8192) == b"A" * 8192
    await rig.volume.release(file)


async def test_what_is_set_apart_is_never_short(by_path: Rig) -> None:
    """The kernel may still take it for as long as it was, and the rest for zeros."""
    rig = by_path
    (rig.root / "f").write_bytes(b"A" * 8192)
    left_alone(rig.root / "f")
    file = await rig.open("f", os.O_RDONLY)
    file.data.set_apart()
    os.truncate(rig.root / "f", 100)  # as sshfs' kernel cuts it, which has heard of a shorter one
    with pytest.raises(OSError, match="taken the name") as caught:
        await rig.read(file, 0, 8192)
    assert caught.value.errno == errno.ESTALE
    await rig.volume.release(file)


@pytest.mark.parametrize(("size", "opens"), [(1 << 20, 0), ((1 << 20) + 1, 1)])
async def test_what_is_in_memory_as_a_whole_is_opened_later_where_files_go_by_path(
    by_path: Rig, monkeypatch: pytest.MonkeyPatch, size: int, opens: int
) -> None:
    """A round trip for each small file is most of what tar over a slow network takes."""
    rig = by_path
    (rig.root / "f").write_bytes(b"A" * size)
    await rig.warm("f")
    made = []
    real = opening.open_and_read
    monkeypatch.setattr(opening, "open_and_read", lambda *a: made.append(a) or real(*a))
    file = await rig.open("f", os.O_RDONLY)
    assert len(made) == opens
    assert await rig.read(file, 0, size) == b"A" * size
    assert len(made) == opens
    await rig.volume.release(file)


async def test_another_file_that_is_met_when_it_is_opened_later_is_not_read(by_path: Rig) -> None:
    rig = by_path
    (rig.root / "f").write_bytes(b"A" * 8192)
    await rig.warm("f")
    file = await rig.open("f", os.O_RDONLY)
    (rig.root / "f").write_bytes(b"B" * 8192)
    rig.volume.drop(file.inode)
    for _ in range(2):
        with pytest.raises(OSError, match="taken the name") as caught:
            await rig.read(file, 0, 8192)
        assert caught.value.errno == errno.ESTALE
    await rig.volume.release(file)
    file = await rig.open("f", os.O_RDONLY)
    assert await rig.read(file, 0, 8192) == b"B" * 8192
    await rig.volume.release(file)
