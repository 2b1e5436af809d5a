"""The directory of figures and knobs."""

import errno
import json
import os
import stat

import pytest
from page_data import run, split

from tmemfs.cachefs.inodes import OWN_NUMBERS


def entry(control, path: str):
    found = control.directory
    for name in path.split("/"):
        found = control.lookup(found.number, name.encode())
    return found


async def opened(control, path: str, flags: int = os.O_RDWR):
    return await control.open(entry(control, path).number, flags)


async def content(control, path: str) -> bytes:
    return bytes((await opened(control, path)).read(0, 1 << 20))


async def write(control, path: str, text: bytes) -> int:
    return await (await opened(control, path)).write(0, text)


def test_what_there_is(handlers) -> None:
    control = handlers.control
    names = [child.name for child in control.list(control.directory.number)]
    assert names == [b"status.json", b"metrics", b"drop", b"budget", b"readahead", b"swap"]
    assert [child.name for child in control.list(entry(control, "swap").number)] == [b"swap0"]
    assert control.directory.number == OWN_NUMBERS
    assert control.directory.number in control
    assert OWN_NUMBERS + 100 not in control


async def test_what_there_is_not(handlers) -> None:
    control = handlers.control
    with pytest.raises(FileNotFoundError):
        entry(control, "nothing")
    with pytest.raises(NotADirectoryError):
        entry(control, "budget/below")
    with pytest.raises(IsADirectoryError):
        await opened(control, "swap")


def test_attributes(handlers) -> None:
    control = handlers.control
    for path, mode, size in (
        ("status.json", stat.S_IFREG | 0o444, 0),
        ("budget", stat.S_IFREG | 0o644, 0),
        ("drop", stat.S_IFREG | 0o200, 0),
        ("swap", stat.S_IFDIR | 0o755, 0),
        ("swap/swap0", stat.S_IFREG | 0o600, 1 << 20),
    ):
        info = control.stat(entry(control, path))
        assert (info.st_mode, info.st_size) == (mode, size)
        assert (info.st_uid, info.st_gid) == (os.geteuid(), os.getegid())
        assert info.st_mtime_ns > 10**18
    assert control.stat(control.directory).st_nlink == 3


async def test_status_says_all(handlers) -> None:
    status = json.loads(await content(handlers.control, "status.json"))
    assert (status["version"], status["pid"]) == ("1.2.3", 4711)
    assert status["failsafe"] == {"count": 0, "last": None}
    assert status["uptime_seconds"] >= 0
    for key in [
        "mem_limit",
        "mem_used_total",
        "mem_used_max",
        "orig_data_size",
        "compr_data_size",
        "same_pages",
        "huge_pages",
        "metadata_bytes",
        "rss_bytes",
    ]:
        assert isinstance(status["memory"][key], int)
    assert [pool["name"] for pool in status["pools"]] == ["cache", "swap0"]
    for key in [
        "evicted_pgs",
        "evict_attempts",
        "pers_ate_eph",
        "written_back_pages",
        "pool_limit_hit",
        "put_to_flush",
    ]:
        assert status["reclaim"][key] == 0


async def test_a_text_stays_as_it_was_at_the_open(handlers) -> None:
    text = await opened(handlers.control, "status.json")
    first = text.read(0, 100)
    handlers.rig.pool.put(1, 0, run(1, 1))
    assert text.read(0, 100) == first
    assert text.read(1 << 20, 10) == b""


async def test_the_budget_is_read_and_written(handlers) -> None:
    core = handlers.rig.core
    assert await content(handlers.control, "budget") == b"%d\n" % core.budget
    for text, size in ((b"8M\n", 8 << 20), (b"16M", 16 << 20), (b"6291456\n", 6 << 20)):
        assert await write(handlers.control, "budget", text) == len(text)
        assert core.budget == size
        assert await content(handlers.control, "budget") == b"%d\n" % size


@pytest.mark.parametrize("text", [b"", b"lots\n", b"-5\n", b"0\n", b"1T\n", b"\xff\n", b"1K\n"])
async def test_a_budget_that_cannot_be(handlers, text: bytes) -> None:
    before = handlers.rig.core.budget
    with pytest.raises(OSError) as caught:  # noqa: PT011 - compared below
        await write(handlers.control, "budget", text)
    assert caught.value.errno == errno.EINVAL
    assert handlers.rig.core.budget == before


async def test_a_budget_that_does_not_hold_the_swap(handlers) -> None:
    core = handlers.rig.core
    pool = core.pools[1]
    assert pool.put_many(1, 0, run(1, 2500)) == 2500
    with pytest.raises(OSError, match="persistent") as caught:
        await write(handlers.control, "budget", b"6M")
    assert caught.value.errno == errno.EBUSY
    assert core.budget == 16 << 20
    assert pool.get_many(1, 0, 2500) == split(run(1, 2500))


async def test_a_smaller_budget_gives_memory_back(handlers) -> None:
    rig = handlers.rig
    rig.pool.put_many(1, 0, run(1, 3000))
    await write(handlers.control, "budget", b"4M")
    memory = rig.core.statistics()["memory"]
    assert memory["mem_used_total"] + memory["metadata_bytes"] <= 4 << 20
    assert memory["mem_used_total"] > 0


async def test_a_knob_of_the_volume(handlers) -> None:
    control, volume = handlers.control, handlers.rig.volume
    volume.readahead = 65536
    assert await content(control, "readahead") == b"65536\n"
    assert await write(control, "readahead", b"256K\n") == 5
    assert volume.readahead == 256 << 10
    assert await write(control, "readahead", b"0\n") == 2
    assert await content(control, "readahead") == b"0\n"
    for text in (b"65M", b"-1", b"fast", b""):
        with pytest.raises(OSError, match=r".") as caught:
            await write(control, "readahead", text)
        assert caught.value.errno == errno.EINVAL
    assert volume.readahead == 0


def test_the_status_tells_the_knobs(handlers) -> None:
    core = handlers.rig.core
    handlers.rig.volume.readahead = 65536
    assert handlers.mount.status()["knobs"] == {
        "budget": {"value": core.budget, "least": core.smallest_budget, "most": core.capacity},
        "readahead": {"value": 65536, "least": 0, "most": 64 << 20},
    }


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"\n", b"-1", b"1.0", b"0x10", b"1 2 three", b"all 1", b"ALL", b"1_0"),
        *(b"18446744073709551616", "\u0663".encode(), b"\xff"),
    ],
)
async def test_what_cannot_be_dropped(handlers, text: bytes) -> None:
    rig = handlers.rig
    rig.pool.put(1, 0, run(1, 1))
    with pytest.raises(OSError, match="Invalid argument"):
        await write(handlers.control, "drop", text)
    assert rig.pages() == 1


async def test_numbers_that_nobody_knows_are_nothing_to_drop(handlers) -> None:
    handlers.rig.pool.put(1, 0, run(1, 1))
    largest = b"18446744073709551615"
    assert await write(handlers.control, "drop", b"4711\n" + largest + b"\n") == 26
    assert handlers.rig.pages() == 1
    assert await content(handlers.control, "drop") == b""


async def test_figures_cannot_be_written(handlers) -> None:
    for name in ("status.json", "metrics"):
        with pytest.raises(PermissionError):
            await write(handlers.control, name, b"x")


async def test_a_swap_volume_is_read_and_written(handlers) -> None:
    volume = await opened(handlers.control, "swap/swap0")
    assert volume.write(5000, b"bytes") == 5
    assert bytes(volume.read(4999, 7)) == b"\0bytes\0"
