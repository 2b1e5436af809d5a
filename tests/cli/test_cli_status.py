"""The status table in the manners of util-linux, and what is said of a mount without figures."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tmemfs.cli import figures
from tmemfs.cli.main import main
from tmemfs.cli.output import columns
from tmemfs.linux import loops, system
from tmemfs.linux.loops import Loop, SwapDevice
from tmemfs.linux.system import Mount

# The figures of conftest.py: a pool 'cache' and an unused pool 'swap0'.
AddMount = Any


def shown(capsys: pytest.CaptureFixture[str], *argv: str) -> list[str]:
    """The lines of a status that went well."""
    assert main(["status", *argv]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out.splitlines()


# --- the table -------------------------------------------------------------------------------


def test_the_default_table(
    add_mount: AddMount, without_swap: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    place = str(add_mount(figures=without_swap))
    gap = " " * (len(place) - len("MOUNTPOINT"))
    assert shown(capsys) == [
        f"MOUNTPOINT{gap} POOL  KIND      DATA COMPR TOTAL RATIO  HIT% MEM-USED MEM-LIMIT",
        f"{place} cache ephemeral 750M  250M  256M  3.00 87.5%     300M        1G",
    ]


@pytest.fixture
def swap_is_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every swap volume has a loop device, which is swap."""
    swap = SwapDevice("/dev/loop3", 8 << 30, 1200 << 20, -2)
    loop = Loop(swap.device, (7, 3), "/m/.tmemfs/swap/swap0", dio=True)
    monkeypatch.setattr(loops, "on", lambda _device: [loop])
    monkeypatch.setattr(loops, "swaps_on", lambda _loop: [swap])


@pytest.mark.usefixtures("swap_is_on")
def test_the_default_table_with_swap(
    add_mount: AddMount, capsys: pytest.CaptureFixture[str]
) -> None:
    place = str(add_mount())
    gap = " " * (len(place) - len("MOUNTPOINT"))
    columns = "DATA COMPR TOTAL RATIO  HIT% MEM-USED MEM-LIMIT DEVICE     PRIO USED"
    assert shown(capsys) == [
        f"MOUNTPOINT{gap} POOL  KIND       {columns}",
        f"{place} cache ephemeral  750M  250M  256M  3.00 87.5%     300M        1G",
        f"{place} swap0 persistent   0B    0B    0B                 300M        1G"
        " /dev/loop3   -2 1.2G",
    ]


def test_a_swap_volume_that_is_not_in_use(
    add_mount: AddMount, capsys: pytest.CaptureFixture[str]
) -> None:
    add_mount()
    document = json.loads("\n".join(shown(capsys, "-J", "-o", "DEVICE,PRIO,USED,SIZE,OVERFLOW")))
    empty = {"device": None, "prio": None, "used": None}
    assert document["tmemfs"] == [
        empty | {"size": None, "overflow": None},
        empty | {"size": "8G", "overflow": "/var/lib/swap0"},
    ]


def test_what_the_daemon_may_not_do(
    add_mount: AddMount, capsys: pytest.CaptureFixture[str]
) -> None:
    place = add_mount()
    assert shown(capsys, "-n", "-o", "UNSAFE,DISCARD") == ["real_time yes"] * 2
    assert main(["status", "--verbose"]) == 0
    assert capsys.readouterr().err == f"tmemfs: {place}: may wait: grant CAP_SYS_NICE\n"


def test_what_is_built_in(add_mount: AddMount, capsys: pytest.CaptureFixture[str]) -> None:
    add_mount()
    assert shown(capsys, "-n", "-o", "DISCARD,NATIVE-READER") == ["yes yes"] * 2


def test_no_blanks_at_the_end_of_a_line(
    add_mount: AddMount, capsys: pytest.CaptureFixture[str]
) -> None:
    add_mount()
    assert shown(capsys, "-o", "pool,hit%,kind,ratio") == [
        "POOL   HIT% KIND       RATIO",
        "cache 87.5% ephemeral   3.00",
        "swap0       persistent",
    ]


def test_sizes_in_bytes(add_mount: AddMount, capsys: pytest.CaptureFixture[str]) -> None:
    add_mount()
    lines = shown(capsys, "--bytes", "--noheadings", "--output", "POOL,DATA,MEM-LIMIT,PAGE-SIZE")
    assert [line.split() for line in lines] == [
        ["cache", str(750 << 20), str(1 << 30), "16384"],
        ["swap0", "0", str(1 << 30), "4096"],
    ]


def test_raw_output_can_be_split_at_blanks(
    add_mount: AddMount, capsys: pytest.CaptureFixture[str]
) -> None:
    place = add_mount("a b\\c\n\u00e4")
    escaped = f"{place.parent}/a\\x20b\\x5cc\\x0a\u00e4"
    assert shown(capsys, "--raw", "-o", "POOL,MOUNTPOINT,RATIO,UPTIME") == [
        "POOL MOUNTPOINT RATIO UPTIME",
        f"cache {escaped} 3.00 1-02:03:04",
        f"swap0 {escaped}  1-02:03:04",
    ]


def test_a_line_end_in_a_name_does_not_end_the_line(
    add_mount: AddMount, capsys: pytest.CaptureFixture[str]
) -> None:
    place = add_mount("a\nb")
    assert shown(capsys, "-n", "-o", "MOUNTPOINT") == [f"{place.parent}/a\\nb"] * 2


def test_columns_are_added_to_the_default_ones(
    add_mount: AddMount, capsys: pytest.CaptureFixture[str]
) -> None:
    add_mount()
    default = shown(capsys)[0].split()
    assert shown(capsys, "-o", "+pid,source")[0].split() == [*default, "PID", "SOURCE"]


def test_an_unknown_column_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "-o", "POOL,MEMLIMIT"]) == 2
    assert capsys.readouterr().err == (
        "tmemfs: unknown column 'MEMLIMIT'; did you mean 'MEM-LIMIT'?\n"
    )


def test_every_column_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--help"]) == 0
    text = capsys.readouterr().out
    missing = [
        name
        for name, column in columns.COLUMNS.items()
        if f" {name}  {column.explanation}\n" not in text
    ]
    assert missing == []


@pytest.mark.usefixtures("swap_is_on")
def test_every_figure_has_a_column(add_mount: AddMount, capsys: pytest.CaptureFixture[str]) -> None:
    add_mount()
    document = json.loads("\n".join(shown(capsys, "--json", "--bytes", "--output-all")))
    cache, swap = document["tmemfs"]
    empty = {name for name, value in (cache | swap).items() if value is None}
    # These the figures of the test leave out, or have none for.
    assert empty == {
        "pers-ate-eph", "written-back-pages", "pool-limit-hit", "put-to-flush", "last-failsafe",
        "ratio", "hit%",
    }  # fmt: skip
    assert (swap["device"], swap["prio"], swap["used"]) == ("/dev/loop3", -2, 1200 << 20)
    assert [swap[f"overflow-{what}"] for what in ("pages", "reads", "writes", "errors")] == [
        5, 6, 7, 0,
    ]  # fmt: skip
    assert (cache["backing-reads"], cache["readahead"], cache["stale"], cache["inodes"]) == (
        21, 27, 28, 30,
    )  # fmt: skip
    assert (cache["backing-read"], cache["backing-written"]) == (22 << 20, 24 << 20)
    assert (cache["no-mem-puts"], cache["found-gets"], cache["flush-objs-found"]) == (1000, 875, 2)
    assert (cache["evicted-pgs"], cache["rss"], cache["failsafes"]) == (17, 340 << 20, 0)
    assert (cache["pid"], cache["uptime"], cache["source"]) == (4711, 93784.5, "/srv/slow")


# --- JSON ------------------------------------------------------------------------------------


def test_json(add_mount: AddMount, capsys: pytest.CaptureFixture[str]) -> None:
    place = str(add_mount())
    text = "\n".join(shown(capsys, "--json", "-o", "MOUNTPOINT,POOL,DATA,RATIO,HIT%,PUTS"))
    assert json.loads(text) == {
        "tmemfs": [
            {
                "mountpoint": place, "pool": "cache", "data": "750M", "ratio": 3.0, "hit%": 87.5,
                "puts": 50000,
            },
            {
                "mountpoint": place, "pool": "swap0", "data": "0B", "ratio": None, "hit%": None,
                "puts": 50000,
            },
        ]
    }  # fmt: skip


def test_json_and_raw_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "-J", "-r"]) == 2
    assert "exclude each other" in capsys.readouterr().err


def test_nothing_mounted(add_mount: AddMount, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys) == []
    assert json.loads("".join(shown(capsys, "--json"))) == {"tmemfs": []}


# --- which mounts ----------------------------------------------------------------------------


def test_all_mounts_or_one(add_mount: AddMount, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = str(add_mount("one")), str(add_mount("other"))
    places = ("-n", "-o", "MOUNTPOINT")
    assert shown(capsys, *places) == [one, one, other, other]
    assert shown(capsys, *places, other) == [other, other]


def test_a_mount_on_top_of_another_is_shown_once(
    add_mount: AddMount, capsys: pytest.CaptureFixture[str]
) -> None:
    place = str(add_mount())
    add_mount()
    assert shown(capsys, "-n", "-o", "MOUNTPOINT") == [place, place]


def test_a_mount_under_something_else_is_not_asked(
    add_mount: AddMount, capsys: pytest.CaptureFixture[str]
) -> None:
    add_mount()
    add_mount(fstype="ext4", figures={"pools": [{"name": "not ours"}]})
    assert shown(capsys) == []


def test_a_mount_without_pools_is_shown(
    add_mount: AddMount, capsys: pytest.CaptureFixture[str]
) -> None:
    add_mount(figures={"pid": 12, "pools": []})
    assert [line.split() for line in shown(capsys, "-o", "POOL,DATA,PID,MEM-LIMIT")] == [
        ["POOL", "DATA", "PID", "MEM-LIMIT"],
        ["12"],
    ]


@pytest.mark.parametrize(
    ("fstype", "line"),
    [
        ("ext4", "{}: what is mounted there is ext4, not tmemfs"),
        (None, "{}: nothing is mounted there"),
    ],
)
def test_what_is_no_mount_of_ours(
    fstype: str | None,
    line: str,
    add_mount: AddMount,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place = add_mount(fstype=fstype) if fstype else tmp_path
    assert main(["status", str(place)]) == 32
    assert capsys.readouterr().err == f"tmemfs: {line.format(place)}\n"


# --- mounts without figures -------------------------------------------------------------------


def beside_a_good_one(add_mount: AddMount, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and line about a mount 'bad'; the good mount must have been shown."""
    good = str(add_mount("good"))
    code = main(["status", "-n", "-o", "MOUNTPOINT"])
    out, err = capsys.readouterr()
    assert out.splitlines() == [good, good]
    assert err.count("\n") == 1
    return code, err


@pytest.mark.parametrize(
    ("code", "ending", "says"),
    [
        (errno.ENOTCONN, 32, "the mount is stale, its daemon is gone; clear it away with"),
        (errno.ECONNABORTED, 32, "the mount is stale"),
        (errno.ETIMEDOUT, 32, "the daemon does not answer"),
        (errno.EACCES, 1, "the mount belongs to another user"),
        (errno.EIO, 32, os.strerror(errno.EIO)),
    ],
)
def test_a_mount_that_cannot_be_read_is_named_and_the_others_shown(
    code: int,
    ending: int,
    says: str,
    add_mount: AddMount,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad = str(add_mount("bad"))
    read = figures._read

    def read_or_fail(mountpoint: str) -> bytes:
        if mountpoint == bad:
            raise OSError(code, os.strerror(code), mountpoint)
        return read(mountpoint)

    monkeypatch.setattr(figures, "_read", read_or_fail)
    exit_code, err = beside_a_good_one(add_mount, capsys)
    assert exit_code == ending
    assert err.startswith(f"tmemfs: {bad}: {says}")


@pytest.mark.parametrize("document", ["", "{", "[]", "4711"])
def test_nonsense_is_named(
    document: str, add_mount: AddMount, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = add_mount("bad")
    (bad / ".tmemfs" / "status.json").write_text(document)
    code, err = beside_a_good_one(add_mount, capsys)
    assert code == 32
    assert err.startswith(f"tmemfs: {bad}: .tmemfs/status.json ")


def test_an_older_daemon_has_no_figures_of_the_volume(
    add_mount: AddMount, without_swap: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    del without_swap["cache"]
    add_mount(figures=without_swap)
    assert shown(capsys, "-o", "POOL,BACKING-READ,STALE") == ["POOL  BACKING-READ STALE", "cache"]


def test_figures_of_the_wrong_type_are_left_empty() -> None:
    mount = Mount(1, 1, (0, 1), "/m", frozenset(), system.FSTYPE, "/s", frozenset())
    row = columns.Row(mount.mountpoint, {"memory": 5, "pid": None}, {"gets": "many", "pages": []})
    written = {
        name: column.written(row, in_bytes=False) for name, column in columns.COLUMNS.items()
    }
    assert {name: text for name, text in written.items() if text} == {
        "MOUNTPOINT": "/m",
        "GETS": "many",
    }
