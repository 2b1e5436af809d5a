"""What was seen of names and attributes a moment ago is told again while it may be believed."""

import errno
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from rig import FAR, ME, Rig, gate

from tmemfs.cachefs import attrcache
from tmemfs.cachefs import names as tree
from tmemfs.cachefs.names import Found
from tmemfs.cachefs.source import directories, routes
from tmemfs.cachefs.source.routes import Look

FILES = 30
NAMES = [f"d/f{number:02}" for number in range(FILES)]
TTL = 1000.0


class Clock:
    """The time as it is, and as much later as a test likes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.later = 0.0
        now = time.monotonic
        monkeypatch.setattr(time, "monotonic", lambda: now() + self.later)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """The names that were asked for, one by one."""
    names: list[bytes] = []
    look = tree.look

    def noted(directory: int, name: bytes) -> object:
        names.append(name)
        return look(directory, name)

    monkeypatch.setattr(tree, "look", noted)
    return names


@pytest.fixture
async def far(new_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch) -> Rig:
    """Thirty files in a directory, as over a network; on a machine that may be busy."""
    monkeypatch.setattr(attrcache, "_LISTING_TIMEOUT_S", 60)
    rig = new_rig(kind=FAR, attr_ttl=TTL, entry_ttl=TTL)
    (rig.root / "d").mkdir()
    for number, name in enumerate(NAMES):
        (rig.root / name).write_bytes(bytes(number))
    return rig


async def lookup(rig: Rig, name: str) -> Found:
    directory = rig.volume.inodes.known(
        rig.volume.inodes.root, Look(os.stat(rig.root / "d"), None)
    ) or await rig.inode("d")
    return await rig.names.lookup(directory, Path(name).name.encode())


async def look_at(rig: Rig, names: list[str]) -> list[Found]:
    """Look names up one after the other, and compare what is said of each with what is so."""
    found = [await lookup(rig, name) for name in names]
    for name, each in zip(names, found, strict=True):
        assert each.info == os.lstat(rig.root / name)
    return found


async def test_after_two_names_a_directory_is_listed(far: Rig, asked: list[bytes]) -> None:
    found = await look_at(far, NAMES)
    assert asked == [b"d", b"f00", b"f01"]
    assert [each.age > 0 for each in found] == [False] * 2 + [True] * (FILES - 2)
    assert len({each.inode for each in found}) == FILES
    assert [each.inode.kernel_size for each in found] == list(range(FILES))
    figures = far.volume.statistics()
    assert (figures["listed_directories"], figures["recalled_names"]) == (1, FILES - 2)
    with pytest.raises(FileNotFoundError):
        await lookup(far, "d/n")
    with pytest.raises(FileNotFoundError):
        await lookup(far, "d/n")
    assert far.volume.statistics()["recalled_names"] == FILES - 1


async def test_not_where_asking_is_no_journey(new_rig: Callable[..., Rig]) -> None:
    rig = new_rig(attr_ttl=TTL, entry_ttl=TTL)
    (rig.root / "f").touch()
    for _ in range(5):
        assert (await rig.names.lookup(rig.volume.inodes.root, b"f")).age == 0


async def test_not_where_nothing_is_believed(new_rig: Callable[..., Rig]) -> None:
    for attributes, names in ((TTL, 0.0), (0.0, TTL)):
        rig = new_rig(kind=FAR, attr_ttl=attributes, entry_ttl=names)
        (rig.root / "f").touch(exist_ok=True)
        for _ in range(5):
            assert (await rig.names.lookup(rig.volume.inodes.root, b"f")).age == 0


async def test_what_others_change_is_seen_when_it_was_believed_long_enough(
    far: Rig, clock: Clock
) -> None:
    await look_at(far, NAMES)
    os.chmod(far.root / NAMES[5], 0o600)
    os.unlink(far.root / NAMES[6])
    (far.root / "d/new").touch()
    clock.later = TTL - 1
    five, six = await lookup(far, NAMES[5]), await lookup(far, NAMES[6])
    # They are to be believed for no more than what is left.
    assert all(TTL - 2 < each.age < TTL for each in (five, six))
    # Something that is not listed may be there all the same.
    assert (await lookup(far, "d/new")).age == 0
    clock.later = TTL + 1
    with pytest.raises(FileNotFoundError):
        await lookup(far, NAMES[6])
    await look_at(far, [name for name in NAMES if name != NAMES[6]])


CHANGES = {
    "chmod": lambda rig, inode, root: rig.volume.modify.chmod(inode, 0o600, ME),
    "utimens": lambda rig, inode, root: rig.volume.modify.utimens(inode, (1, 2), ME),
    "chown": lambda rig, inode, root: rig.volume.modify.chown(inode, -1, -1, ME),
    "link": lambda rig, inode, root: rig.volume.modify.link(inode, root, b"another", ME),
    "setxattr": lambda rig, inode, root: rig.volume.modify.setxattr(inode, "user.a", b"b", ME),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_what_we_change_is_seen_at_once(far: Rig, change: str) -> None:
    found = await look_at(far, NAMES)
    try:
        await CHANGES[change](far, found[7].inode, far.volume.inodes.root)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            pytest.skip("a filesystem without extended attributes")
        raise
    again = await look_at(far, NAMES)
    # The others are believed as they were.
    assert [each.age > 0 for each in again] == [number != 7 for number in range(FILES)]


@pytest.mark.parametrize("change", ["write", "truncate", "fallocate"])
async def test_what_we_write_is_seen_at_once(far: Rig, change: str) -> None:
    await look_at(far, NAMES)
    file = await far.open(NAMES[7])
    if change == "write":
        await far.volume.write(file, 0, bytes(100), ME)
    elif change == "truncate":
        await far.volume.truncate(file, 100, ME)
    else:
        await far.volume.fallocate(file, 0, 0, 100, ME)
    for _ in range(2):
        assert (await look_at(far, [NAMES[7]]))[0].info.st_size == 100
        await far.volume.release(file) if far.volume.files.count else None
    assert (await far.names.getattr(file.inode)).info.st_size == 100


async def test_names_that_come_and_go_through_us_are_seen_at_once(far: Rig) -> None:
    await look_at(far, NAMES)
    directory = await far.inode("d")
    await far.volume.modify.unlink(directory, b"f03", ME)
    with pytest.raises(FileNotFoundError):
        await lookup(far, NAMES[3])
    await far.volume.modify.rename(directory, b"f04", directory, b"f03", 0, ME)
    with pytest.raises(FileNotFoundError):
        await lookup(far, NAMES[4])
    await far.volume.modify.mkdir(directory, b"f04", 0o755, ME)
    assert (await look_at(far, NAMES))[4].inode.is_directory


async def test_each_change_is_not_followed_by_another_listing(
    far: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attrcache, "_NOT_YET", TTL)
    listings = []
    look_at_all = directories.look_at_all

    def counted(*of: int) -> object:
        listings.append(of)
        return look_at_all(*of)

    monkeypatch.setattr(directories, "look_at_all", counted)
    directory = await far.inode("d")
    for number in range(20):
        await look_at(far, NAMES[:6])
        await far.volume.modify.mkdir(directory, b"n%d" % number, 0o755, ME)
    assert len(listings) == 1


@pytest.mark.parametrize("change", ["its attributes", "the names"])
async def test_a_change_of_ours_while_a_directory_is_listed(
    far: Rig, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """What the listing has may be from before it, and is not believed."""
    directory, inode = await far.inode("d"), await far.inode(NAMES[7])
    await lookup(far, NAMES[0])
    monkeypatch.setattr(attrcache, "_LISTING_TIMEOUT_S", 0)
    with gate(monkeypatch, "look_at_all") as listed:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lookup, far, NAMES[1])
            await listed.reached.wait()
            if change == "the names":
                await far.volume.modify.rename(directory, b"f08", directory, b"f07", 0, ME)
            else:
                await far.volume.modify.chmod(inode, 0o600, ME)
            listed.open()
        with trio.fail_after(60):
            while not far.names.attrcache._directories[directory].listing.done.is_set():
                await trio.sleep(0)
    names = [name for name in NAMES if change != "the names" or name != NAMES[8]]
    found = await look_at(far, names)
    believed = [each.age > 0 for each in found]
    assert not believed[7]
    assert any(believed) is (change != "the names")


async def test_a_listing_that_does_not_come_holds_up_nobody(
    far: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attrcache, "_LISTING_TIMEOUT_S", 0.01)
    with gate(monkeypatch, "look_at_all", before=True) as listed:
        found = await look_at(far, NAMES)
        assert listed.reached.is_set()
        assert {each.age for each in found} == {0}
        directory = await far.inode("d")
        # It is still wanted when names are believed no more; there is no second one beside it.
        listing = far.names.attrcache._directories[directory].listing
        assert listing is not None
        assert listing.slow


async def test_of_a_large_directory_single_names_are_looked_up(
    far: Rig, monkeypatch: pytest.MonkeyPatch, asked: list[bytes]
) -> None:
    monkeypatch.setattr(tree, "LARGEST", FILES - 1)
    await look_at(far, NAMES)
    assert len(asked) == 1 + FILES


async def test_a_listing_that_fails(far: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(directories, "look_at_all", fail)
    found = await look_at(far, NAMES)
    assert {each.age for each in found} == {0}


async def test_an_inode_that_is_not_known_any_more(far: Rig, asked: list[bytes]) -> None:
    """Who knows whether it is the one that we have changed since."""
    found = await look_at(far, NAMES)
    far.volume.inodes.abandon(found[9].inode)
    assert (await look_at(far, [NAMES[9]]))[0].age > 0
    far.volume.inodes.abandon((await lookup(far, NAMES[9])).inode)
    await far.volume.modify.chmod(found[10].inode, 0o600, ME)
    assert (await look_at(far, [NAMES[9]]))[0].age == 0


async def test_no_more_is_kept_than_is_allowed(
    far: Rig, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.setattr(attrcache, "_NAMES", 50)
    monkeypatch.setattr(attrcache, "_FILES", 7)
    kept = far.names.attrcache
    for number in range(9):
        directory = far.root / f"e{number}"
        directory.mkdir()
        inode = await far.inode(directory.name)
        for name in range(20):
            (directory / str(name)).touch()
        for name in range(20):
            await far.names.lookup(inode, str(name).encode())
        listings = [each.listing for each in kept._directories.values()]
        assert kept._listed == sum(len(each.looks) for each in listings if each is not None)
        assert kept._listed <= 50
        assert len(kept._files) <= 7
    # What is believed no more is forgotten as soon as anything else is looked up.
    clock.later = TTL
    await far.inode("d")
    await lookup(far, NAMES[0])
    assert kept._listed == 0
    assert {inode.name for inode in kept._directories} == {b"", b"d"}


async def test_dropping_forgets_names_too(far: Rig) -> None:
    found = await look_at(far, NAMES)
    far.volume.drop(found[0].inode)
    assert (await lookup(far, NAMES[5])).age == 0
    assert len(list(far.volume.drop_all())) == 0


async def test_attributes_that_an_open_has_brought(far: Rig, clock: Clock) -> None:
    file = await far.open(NAMES[9], os.O_RDONLY)
    found = await far.names.getattr(file.inode)
    assert found.age > 0
    assert far.volume.statistics()["recalled_attributes"] == 1
    assert found.info == os.stat(far.root / NAMES[9])
    os.chmod(far.root / NAMES[9], 0o600)
    clock.later = TTL
    found = await far.names.getattr(file.inode)
    assert found.age == 0
    assert found.info == os.stat(far.root / NAMES[9])
    await far.volume.modify.chmod(file.inode, 0o640, ME)
    found = await far.names.getattr(file.inode)
    assert found.age == 0
    assert found.info == os.stat(far.root / NAMES[9])
    await far.volume.release(file)


async def test_late_attributes_do_not_replace_newer_ones(far: Rig) -> None:
    inode = await far.inode(NAMES[0])
    older = far.volume.executor.asking()
    info = os.stat(far.root / NAMES[0])
    os.chmod(far.root / NAMES[0], 0o600)
    newer = await far.names.fstat(inode)
    far.names.attrcache.note(inode, info, older)
    assert (await far.names.getattr(inode)).info == newer != info


async def test_what_is_told_does_not_go_back_and_forth(far: Rig) -> None:
    """Whichever way newer attributes came, older ones are not told after them."""
    await look_at(far, NAMES)
    path = far.root / NAMES[9]
    path.write_bytes(bytes(50))
    file = await far.open(NAMES[9], os.O_RDONLY)  # which looks at the file
    assert (await far.names.getattr(file.inode)).info.st_size == 50 == file.inode.kernel_size
    path.write_bytes(bytes(60))
    assert (await lookup(far, NAMES[9])).info.st_size == 60  # of a file that is open
    assert (await far.names.getattr(file.inode)).info.st_size == 60
    await far.volume.release(file)
    # It is not open any more, but the listing is older than what was seen since.
    assert (await lookup(far, NAMES[9])).info.st_size == 60
    path.write_bytes(bytes(70))
    await far.listed(await far.inode("d"), [b"f09"])
    assert (await far.names.getattr(file.inode)).info.st_size == 70


async def test_who_appends_after_others_writes_over_nothing(far: Rig) -> None:
    """What is told of late is what the kernel takes for the end of the file."""
    path = far.root / "log"
    path.write_bytes(b"one")
    inode = await far.inode("log")
    with open(path, "ab") as other:
        other.write(b"two")
    file, _ = await far.volume.open(inode, os.O_WRONLY | os.O_APPEND, ME)
    found = await far.names.getattr(inode)
    assert found.age > 0
    assert found.info.st_size == 6 == inode.kernel_size
    with open(path, "ab") as other:
        other.write(b"three")
    await far.volume.write(file, 6, b"four", ME)
    assert path.read_bytes() == b"onetwothreefour"
    await far.volume.release(file)


async def test_a_node_that_is_made_anew_was_perhaps_changed(far: Rig) -> None:
    found = await look_at(far, NAMES)
    directory = await far.inode("d")
    await far.volume.modify.chmod(found[9].inode, 0o600, ME)
    far.volume.inodes.abandon(found[9].inode)
    await far.listed(directory, [b"f09"])
    await look_at(far, NAMES)


@pytest.mark.parametrize("reached", [True, False])
async def test_an_inode_number_that_is_another_files_now(far: Rig, reached: bool) -> None:
    await look_at(far, NAMES)
    directory = await far.inode("d")
    listing = far.names.attrcache._directories[directory].listing
    assert listing is not None
    # As if the number of the one had been used again for the other when both are known.
    (far.root / "other").write_bytes(b"another file")
    other = await far.inode("other")
    if reached:
        await far.names.fstat(other)
    assert isinstance(listing.looks, dict)
    old = b"of the file that had the number"
    listing.looks[b"f09"] = Look(os.lstat(far.root / "other"), old)
    found = await lookup(far, NAMES[9])
    assert found.age == 0
    assert found.inode is not other
    assert (await far.inode("other")) is other


@pytest.mark.parametrize("why", ["it is too large", "it takes too long"])
async def test_a_directory_is_not_listed_again_for_nothing(
    far: Rig, monkeypatch: pytest.MonkeyPatch, clock: Clock, why: str
) -> None:
    listings = []
    look_at_all = directories.look_at_all

    def counted(*of: int) -> object:
        listings.append(of)
        if why == "it takes too long":
            clock.later += TTL
        return look_at_all(*of)

    monkeypatch.setattr(directories, "look_at_all", counted)
    monkeypatch.setattr(tree, "LARGEST", FILES if why == "it takes too long" else FILES - 1)
    monkeypatch.setattr(attrcache, "_NOT_AGAIN", 10 * TTL)
    for _ in range(5):
        assert {each.age for each in await look_at(far, NAMES)} == {0}
        clock.later += TTL
    assert len(listings) == 1
    clock.later += 10 * TTL
    await look_at(far, NAMES)
    assert len(listings) == 2


async def test_a_change_that_may_have_arrived_with_a_close(far: Rig) -> None:
    file = await far.open(NAMES[9])
    await far.volume.write(file, 0, bytes(50), ME)
    for end in (far.volume.flush(file), far.volume.fsync(file, False), far.volume.release(file)):
        await far.names.fstat(file.inode)
        assert (await far.names.getattr(file.inode)).age > 0
        await end
        assert (await far.names.getattr(file.inode)).age == 0


@pytest.mark.parametrize("how", ["a lookup", "a listing of the kernel's", "attributes"])
async def test_a_name_of_which_more_was_heard_is_not_told_from_a_listing(
    far: Rig, how: str
) -> None:
    found = await look_at(far, NAMES)
    directory = await far.inode("d")
    replaced = how != "attributes"
    if replaced:
        (far.root / "other").write_bytes(bytes(99))
        os.rename(far.root / "other", far.root / NAMES[9])
    else:
        (far.root / NAMES[9]).write_bytes(bytes(99))
    if how == "a lookup":
        await far.names.lookup_anew(directory, b"f09")
    elif how == "attributes":
        await far.names.fstat(found[9].inode)
        far.volume.inodes.abandon(found[9].inode)
    else:
        await far.listed(directory, [b"f08", b"f09"])
    now = await lookup(far, NAMES[9])
    assert now.info.st_size == 99
    assert (now.inode is found[9].inode) is False


async def test_a_file_of_which_more_was_heard_by_another_name(far: Rig) -> None:
    os.link(far.root / NAMES[9], far.root / "other")
    await look_at(far, NAMES)
    with open(far.root / "other", "ab") as file:
        file.write(bytes(50))
    assert (await far.names.lookup(far.volume.inodes.root, b"other")).info.st_size == 59
    assert (await lookup(far, NAMES[9])).info.st_size == 59


@pytest.mark.parametrize("heard", ["that it is there", "that it is not"])
async def test_a_name_of_which_more_was_heard_while_a_directory_is_listed(
    far: Rig, monkeypatch: pytest.MonkeyPatch, heard: str
) -> None:
    directory = await far.inode("d")
    for name in NAMES[:2]:
        await lookup(far, name)
    monkeypatch.setattr(attrcache, "_LISTING_TIMEOUT_S", 0)
    with gate(monkeypatch, "look_at_all") as listed:
        await lookup(far, NAMES[2])
        await listed.reached.wait()
        if heard == "that it is there":
            (far.root / "other").write_bytes(bytes(99))
            os.rename(far.root / "other", far.root / NAMES[9])
            assert (await lookup(far, NAMES[9])).info.st_size == 99
        else:
            (far.root / NAMES[9]).unlink()
            assert not await is_there(far, NAMES[9])
        listed.open()
    with trio.fail_after(60):
        while not far.names.attrcache._directories[directory].listing.done.is_set():
            await trio.sleep(0)
    assert (await lookup(far, NAMES[10])).age > 0
    far.names.attrcache._negative.clear()
    assert await is_there(far, NAMES[9]) is (heard == "that it is there")
    if heard == "that it is there":
        assert (await lookup(far, NAMES[9])).info.st_size == 99


async def test_listings_that_do_not_come_do_not_pile_up(
    far: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attrcache, "_LISTING_TIMEOUT_S", 0)
    directory, kept = await far.inode("d"), far.names.attrcache
    with gate(monkeypatch, "look_at_all", before=True) as listed:
        for _ in range(20):
            await look_at(far, NAMES[:5])
            kept.clear()
        assert kept._under_way == 1
        # Nor in many directories.
        for number in range(30):
            (far.root / f"e{number}").mkdir()
            for name in "abc":
                (far.root / f"e{number}" / name).touch()
                await far.inode(f"e{number}/{name}")
        assert kept._under_way == attrcache._UNDER_WAY
        listed.open()
    with trio.fail_after(60):
        while kept._under_way:
            await trio.sleep(0)
    assert not directory.pinned
    # What came of the one that was not to be believed is not; the next one is.
    monkeypatch.setattr(attrcache, "_LISTING_TIMEOUT_S", 60)
    assert [each.age > 0 for each in await look_at(far, NAMES[:3])] == [False, False, True]


async def test_a_sync_that_fails_may_have_sent_something(
    far: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = await far.open(NAMES[9])
    await far.volume.write(file, 0, bytes(50), ME)
    await far.names.fstat(file.inode)

    def fail(_: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="quota"):
            await far.volume.fsync(file, False)
    assert (await far.names.getattr(file.inode)).age == 0
    await far.volume.release(file)


# --- names that are not there --------------------------------------------------------------------


async def is_there(rig: Rig, name: str = "d/n") -> bool:
    try:
        await lookup(rig, name)
    except FileNotFoundError:
        return False
    return True


@asynccontextmanager
async def asking(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """In this context somebody has asked for a name that is missing, and has no answer yet."""
    with gate(monkeypatch, "look") as looked:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(is_there, rig)
            await looked.reached.wait()
            yield
            looked.open()


async def test_a_name_that_is_missing_is_asked_for_once(
    far: Rig, asked: list[bytes], clock: Clock
) -> None:
    for _ in range(3):
        assert not await is_there(far)
    assert asked.count(b"n") == 1
    (far.root / "d/n").touch()
    clock.later = TTL - 1
    assert not await is_there(far)  # others made it
    await far.listed(await far.inode("d"), [b"n"])  # and somebody lists it
    assert await is_there(far)
    (far.root / "d/n").unlink()
    clock.later += TTL
    assert not await is_there(far)
    (far.root / "d/n").touch()
    assert not await is_there(far)
    clock.later += TTL
    assert await is_there(far)


@pytest.mark.parametrize("how", ["mkdir", "rename", "link", "create"])
async def test_a_name_that_we_make_is_there_at_once(far: Rig, how: str) -> None:
    root, directory = far.volume.inodes.root, await far.inode("d")
    (far.root / "file").touch()
    assert not await is_there(far)
    if how == "mkdir":
        await far.volume.modify.mkdir(directory, b"n", 0o755, ME)
    elif how == "rename":
        await far.volume.modify.rename(root, b"file", directory, b"n", 0, ME)
    elif how == "link":
        await far.volume.modify.link(await far.inode("file"), directory, b"n", ME)
    else:
        os.close(await far.volume.modify.create(directory, b"n", 0o644, os.O_RDWR, ME))
    assert await is_there(far)


async def test_a_name_that_we_make_while_it_is_asked_for(
    far: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = await far.inode("d")
    async with asking(far, monkeypatch):
        os.close(await far.volume.modify.create(directory, b"n", 0o644, os.O_RDWR, ME))
    assert await is_there(far)


async def test_missing_names_are_not_believed_where_names_are_not(
    new_rig: Callable[..., Rig], asked: list[bytes]
) -> None:
    rig = new_rig(kind=FAR, attr_ttl=TTL, entry_ttl=0)
    (rig.root / "d").mkdir()
    for _ in range(3):
        assert not await is_there(rig)
    assert asked.count(b"n") == 3


async def test_no_more_missing_names_are_kept_than_is_allowed(
    far: Rig, monkeypatch: pytest.MonkeyPatch, asked: list[bytes]
) -> None:
    monkeypatch.setattr(attrcache, "_NEGATIVE_ENTRIES", 10)
    for number in range(30):
        assert not await is_there(far, f"d/{number}")
        assert len(far.names.attrcache._negative) <= 10
    assert not await is_there(far, "d/0")
    assert not await is_there(far, "d/29")
    assert (asked.count(b"0"), asked.count(b"29")) == (2, 1)


async def test_a_name_of_which_more_was_heard_is_not_missing(
    far: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer that it was not there was on its way when others made it and somebody saw it."""
    directory = await far.inode("d")
    async with asking(far, monkeypatch):
        (far.root / "d/n").touch()
        # By another function than the one that waits.
        monkeypatch.setattr(directories, "look", routes.look)
        await far.listed(directory, [b"n"])
    assert await is_there(far)
