"""`swapon` and `swapoff` as far as they change nothing: what is refused, and the units."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import tmemfs
from tmemfs.cli.commands import swapoff, swapon
from tmemfs.cli.main import main
from tmemfs.cli.promise import broken_promise
from tmemfs.cli.system import overflowfile, preflight, swaptools, swapvolume, systemd, watermarks
from tmemfs.errors import MountFailure, SwapFailure, SystemFailure
from tmemfs.linux import loops, system
from tmemfs.linux.loops import FileId, Loop, SwapDevice

EXAMPLES = Path(tmemfs.__file__).parents[1] / "examples" / "systemd"
GOLDEN = Path(__file__).parent / "units"
PROGRAM = "/usr/local/bin/tmemfs"

MIB = 1 << 20


@pytest.fixture(autouse=True)
def nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A root for whom no program is to be run, and no directory made."""

    def never(*argv: object, **_: object) -> None:
        pytest.fail(f"{argv} was run")

    monkeypatch.setattr(swaptools, "run", never)
    monkeypatch.setattr(os, "makedirs", never)
    monkeypatch.setattr(swapvolume, "check_root", lambda: None)
    monkeypatch.setattr(preflight, "FUSE_DEVICE", os.devnull)
    monkeypatch.setattr(swapon, "LOOP_CONTROL", os.devnull)


def refused(capsys: pytest.CaptureFixture[str], *argv: str, code: int) -> str:
    """The one line of a command that changed nothing."""
    assert main(argv) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("tmemfs: ")
    assert err.count("\n") == 1
    return err.removeprefix("tmemfs: ").rstrip("\n")


# --- what is typed ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["x"], "--size is missing, as in 'tmemfs swapon x --size 4G'"),
        (["x", "--size", "1X"], "swap: unknown unit in the size '1X'"),
        (["x", "--size", "60K"], "at least 64K"),
        (["x", "--size", "65537"], "a multiple of 4096"),
        (["x", "--size", "17T"], "swap: the size of 'x' is more than 16T"),
        (["a/b", "--size", "1M"], "swap: 'a/b' cannot be a name"),
        (["..", "--size", "1M"], "swap: '..' cannot be a name"),
        (["x", "--size", "1M", "--budget", "1E"], "budget: 1E is more than the "),
        (["x", "--size", "1M", "--budget", "0"], "budget: must be more than nothing"),
        (["x", "--size", "1M", "--discard=page"], "unknown discard policy 'page'; did you mean"),
        (["--discard", "x", "--no-discard", "--size", "1M"], "exclude each other"),
        (["x", "--size", "1M", "-p", "-1"], "--priority: -1 is not 0 to 32767"),
        (["x", "--size", "1M", "-p", "32768"], "--priority: 32768 is not 0 to 32767"),
        (["x", "--size", "1M", "-p", "high"], "invalid int value: 'high'"),
        (["x", "--siez", "1M"], "unknown option '--siez'; did you mean '--size'?"),
        (["x", "--mountpoint", "/m", "--budget", "1M"], "by writing to its .tmemfs/budget"),
        (["x", "--mountpoint", "/m", "--reserve", "1M"], "--reserve: a mount that is there"),
        (["x", "--size", "1M", "--budget", "1M", "--reserve", "2M"], "more than the budget"),
        (["x", "--mountpoint", "/m", "--print-units"], "omit --mountpoint"),
        ([], "NAME"),
        ([""], "NAME: is empty"),
        (["x", "--size", ""], "--size: is empty"),
        (["x", "--size", "1M", "--overflow", ""], "--overflow: is empty"),
        (["x", "--size", "1M", "--mountpoint", ""], "--mountpoint: is empty"),
        (["cache", "--size", "1M"], "swap: 'cache' is what the pages of files are called"),
    ],
)
def test_what_cannot_be_meant(
    argv: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert says in refused(capsys, "swapon", *argv, code=2)


def test_a_mountpoint_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("swapon", "swapoff"):
        line = refused(capsys, command, "x", "--mountpoint", str(tmp_path), code=32)
        assert line == f"{tmp_path}: nothing is mounted there"


def test_off_what_is_not_on(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "swapoff", "no-such-volume", code=32)
    assert line.startswith("no-such-volume: is not on: ")


# --- what the machine lacks ------------------------------------------------------------------


def test_a_tool_that_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda tool, **_: None if tool == "mkswap" else tool)
    line = refused(capsys, "swapon", "x", "--size", "1M", code=2)
    assert line == "mkswap is not installed; it is part of util-linux"


@pytest.mark.parametrize(
    ("module", "name", "says"),
    [(swapon, "LOOP_CONTROL", "modprobe loop"), (preflight, "FUSE_DEVICE", "modprobe fuse")],
)
def test_a_device_that_is_missing(
    module: object,
    name: str,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(module, name, "/nowhere/at all")
    line = refused(capsys, "swapon", "x", "--size", "1M", code=2)
    assert line.startswith("/nowhere/at all: ")
    assert says in line


def test_the_tools_of_root_are_found_without_his_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert swaptools.find("sh").endswith("/sh")
    with pytest.raises(SystemFailure, match="no such tool is not installed"):
        swaptools.find("no such tool")


@pytest.mark.parametrize(
    ("said", "code", "line"),
    [
        (b"mkswap: no\n", 1, "mkswap: no"),
        (b"no\n\n never\n", 1, "mkswap /dev/x: no; never"),
        (b"", 4, "mkswap /dev/x: ended with code 4"),
        (b"", -9, "mkswap /dev/x: was ended by signal 9"),
    ],
)
def test_the_words_of_a_tool_that_fails(said: bytes, code: int, line: str) -> None:
    assert swaptools.failure("mkswap", "/dev/x", said, code) == line


def test_an_overflow_file_has_a_place_and_room(tmp_path: Path) -> None:
    overflowfile.check_overflow(f"{tmp_path}/new", MIB)
    with pytest.raises(MountFailure, match="none: the directory does not exist"):
        overflowfile.check_overflow(f"{tmp_path}/none/new", MIB)
    with pytest.raises(MountFailure, match="is neither a file nor a block device"):
        overflowfile.check_overflow(str(tmp_path), MIB)
    with pytest.raises(MountFailure, match=r"free, and the file takes 8E"):
        overflowfile.check_overflow(f"{tmp_path}/new", 1 << 63)


@pytest.mark.parametrize("overflow", [None, "/var/lib/swap0"])
@pytest.mark.parametrize(("boost", "min_free"), [("15000", "4096"), ("0", "4096"), ("1", "65536")])
def test_what_may_stop_the_machine_is_said(
    boost: str,
    min_free: str,
    overflow: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "watermark_boost_factor").write_text(f"{boost}\n")
    (tmp_path / "min_free_kbytes").write_text(f"{min_free}\n")
    monkeypatch.setattr(watermarks, "SETTINGS", str(tmp_path))
    monkeypatch.setattr(system, "physical_memory", lambda: 4 << 30)
    figures = {"swaps": [{"name": "swap0", "overflow": overflow}], "safety": []}
    monkeypatch.setattr(swapon, "find_mount", lambda _: None)
    monkeypatch.setattr(swapon, "read_figures", lambda _: figures)
    swapon.warn(swapvolume.Volume.of_its_own("swap0"))
    expected = LINE if (boost, min_free) == ("15000", "4096") else ""
    assert capsys.readouterr() == ("", expected)


LINE = (
    "tmemfs: swap0: swap may stop a machine that runs out of memory as a whole: "
    "'sysctl vm.watermark_boost_factor=0' or 'sysctl vm.min_free_kbytes=65536'\n"
)


@pytest.mark.parametrize(
    ("volumes", "says"),
    [
        ([("a", 900, None)], None),
        ([("a", 900, "/o"), ("b", 800, None)], None),
        (
            [("a", 1000, None)],
            "1000M can be swapped out, and the budget of 1G holds 938.7M of pages that do not "
            "compress; when it is full, a machine that is out of memory as a whole stops; "
            "use --size 938M",
        ),
        ([("a", 500, None), ("b", 500, None)], "1000M can be swapped out, and the budget of 1G"),
        ([("a", 65536, "/o"), ("b", 800, None)], "800M can be swapped out, and the budget of 1G"),
    ],
)
def test_what_a_budget_may_not_hold(
    volumes: list[tuple[str, int, str | None]], says: str | None
) -> None:
    swaps = [{"name": n, "size": size * MIB, "overflow": file} for n, size, file in volumes]
    figures = {"memory": {"mem_limit": 1 << 30}, "swaps": swaps}
    line = broken_promise(figures, "; use --size {size}")
    assert line is None if says is None else (line or "").startswith(says)


# --- room for what comes back ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("memory", "other", "fits"), [(99, 0, False), (100, 0, True), (50, 49, False), (50, 50, True)]
)
def test_room_in_memory_and_other_swap(
    memory: int, other: int, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    swap = SwapDevice("/dev/loop0", 1000 * MIB, 100 * MIB, -2)
    beside = SwapDevice("/dev/sda2", 500 * MIB, (500 - other) * MIB, -3)
    monkeypatch.setattr(loops, "swap_devices", lambda: {s.device: s for s in (swap, beside)})
    monkeypatch.setattr(system, "available_memory", lambda: memory * MIB)
    if fits:
        swapoff.check_room(swap)
    else:
        with pytest.raises(SwapFailure, match=r"100M are swapped out, and .* have 99M free"):
            swapoff.check_room(swap)


def test_a_name_that_several_mounts_have(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ("/a/.tmemfs/swap/x", "/b/.tmemfs/swap/x", "/.tmemfs/swap/x", "/b/.tmemfs/swap/y")
    found = [
        Loop(f"/dev/loop{n}", (7, n), file, dio=True, file=FileId((0, n), 7))
        for n, file in enumerate(files)
    ]
    monkeypatch.setattr(loops, "attached", lambda: found)
    line = refused(capsys, "swapoff", "x", code=2)
    assert (
        line == "x: several mounts have it (/a, /b, out of sight, on /dev/loop2); "
        "name one by --mountpoint"
    )


# --- systemd ---------------------------------------------------------------------------------


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["tmemfs"])
    monkeypatch.setattr(shutil, "which", lambda tool, **_: PROGRAM if tool == "tmemfs" else tool)


COMMAND_LINES = {
    "plain": ["swap0", "--size", "8G", "--budget", "1G"],
    "all": [
        *("my-swap_1", "--size", "64M", "--budget", "16M", "--reserve", "4M", "--priority", "100"),
        *("--overflow", '/var/lib/100% "my" $pages', "--discard=pages"),
    ],
}


@pytest.mark.usefixtures("program")
@pytest.mark.parametrize("name", COMMAND_LINES)
def test_the_units_of_a_command_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["swapon", *COMMAND_LINES[name], "--print-units"]) == 0
    assert capsys.readouterr() == ((GOLDEN / f"{name}.txt").read_text(), "")


def test_the_examples_are_the_same_units() -> None:
    template = systemd.template(PROGRAM)
    for name, text in (
        (systemd.DAEMON, systemd.daemon_unit(template)),
        (systemd.SWAPON, systemd.swapon_unit(template)),
    ):
        assert (EXAMPLES / f"{name}@.service").read_text() == text


def test_the_example_has_a_value_for_all_that_the_units_take() -> None:
    given = {
        line.partition("=")[0]
        for line in (EXAMPLES / "swap0.conf").read_text().splitlines()
        if line and not line.startswith("#")
    }
    assert given == {"SIZE", "BUDGET", "MOUNT_OPTIONS", "SWAPON_OPTIONS"}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
@pytest.mark.parametrize("name", ["template", *COMMAND_LINES])
def test_systemd_understands_the_units(name: str, tmp_path: Path) -> None:
    # It looks whether the programs are there.
    program = "/bin/true"
    files = {}
    if name == "template":
        template = systemd.template(program)
        files[f"{systemd.DAEMON}@.service"] = systemd.daemon_unit(template)
        files[f"{systemd.SWAPON}@.service"] = systemd.swapon_unit(template)
    else:
        for text in (GOLDEN / f"{name}.txt").read_text().split(f"# {systemd.DIRECTORY}/")[1:]:
            file, _, unit = text.partition("\n")
            files[file] = unit.replace(PROGRAM, program)
    for file, unit in files.items():
        (tmp_path / file).write_text(unit)
    done = subprocess.run(
        ["systemd-analyze", "verify", *(str(tmp_path / file) for file in files)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
    )
    own = [line for line in done.stderr.splitlines() if "tmemfs" in line]
    assert (done.returncode, own) == (0, [])


def test_the_program_is_the_one_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "tmemfs"
    own.touch(mode=0o755)
    monkeypatch.setattr(sys, "argv", [str(own)])
    assert systemd.program() == str(own)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "__main__.py")])
    monkeypatch.setattr(systemd, "shutil", SimpleNamespace(which=lambda _: None))
    assert systemd.program() == PROGRAM
