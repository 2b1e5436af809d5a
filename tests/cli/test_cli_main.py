"""The command as a whole: which command is meant, and how each ending is told."""

import os
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest

import tmemfs
from tmemfs.cli import main as cli
from tmemfs.cli.commands import mount, status
from tmemfs.cli.main import main
from tmemfs.errors import MountFailure


def told(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    """The exit code and the only line on stderr."""
    code = main(argv)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("tmemfs: ")
    assert err.count("\n") == 1
    return code, err.removeprefix("tmemfs: ").rstrip("\n")


# --- which command is meant ------------------------------------------------------------------


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"tmemfs {tmemfs.__version__}\n"


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_the_overview_names_every_command(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert [command for command in cli.COMMANDS if f"\n  {command} " not in out] == []


@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: tmemfs {command} ")


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["mont", "/a", "/b"], "unknown command 'mont'; did you mean 'mount'?"),
        (["stauts"], "unknown command 'stauts'; did you mean 'status'?"),
        (["--versoin"], "unknown option '--versoin'; did you mean '--version'?"),
        (["status", "--jason"], "unknown option '--jason'; did you mean '--json'?"),
        (["mount", "--budgt=1G", "/a", "/b"], "unknown option '--budgt'; did you mean '--budget'?"),
        (["mount", "--budgt", "1G", "/a"], "unknown option '--budgt'; did you mean '--budget'?"),
        (["umount", "-x", "/a"], "unknown option '-x'; see 'tmemfs umount --help'"),
        (["umount", "/a", "/b"], "'/b' is one argument too many; see 'tmemfs umount --help'"),
        (
            ["umount"],
            "the following arguments are required: MOUNTPOINT; see 'tmemfs umount --help'",
        ),
        (
            ["umount", "--timeout", "soon", "/a"],
            "argument --timeout: invalid float value: 'soon'; see 'tmemfs umount --help'",
        ),
        (
            ["umount", "--timeout", "nan", "/a"],
            "--timeout: nan is not a number of seconds, 0 or more",
        ),
        (["/a", "/b", "-o", "budgt=1G"], "unknown option 'budgt'; did you mean 'budget'?"),
    ],
)
def test_a_wrong_word_is_refused_in_one_line(
    argv: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told(capsys, *argv) == (2, line)


def test_a_word_after_two_dashes_is_no_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, "umount", "--", "--lzay") == (
        32,
        f"{os.getcwd()}/--lzay: nothing is mounted there",
    )


@pytest.fixture
def mounted(monkeypatch: pytest.MonkeyPatch) -> list[SimpleNamespace]:
    """What would have been mounted."""
    calls: list[SimpleNamespace] = []
    monkeypatch.setattr(mount, "run", lambda arguments: calls.append(arguments) or 0)
    return calls


@pytest.mark.parametrize(
    "argv",
    [
        ["mount", "a", "b", "-o", "rw"],
        ["/a", "b", "-o", "rw"],
        ["./a", "b", "-o", "rw"],
        ["a", "b", "-o", "rw"],
        ["-n", "-s", "/a", "b", "-o", "rw"],
    ],
)
def test_a_mount_by_its_name_and_as_a_helper(
    argv: list[str], mounted: list[SimpleNamespace]
) -> None:
    assert main(argv) == 0
    (arguments,) = mounted
    assert arguments.source.lstrip("./") == "a"
    assert arguments.mountpoint == "b"
    assert arguments.options == ["rw"]


def test_a_directory_that_is_called_nearly_like_a_command(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    mounted: list[SimpleNamespace],
) -> None:
    place = tmp_path_factory.mktemp("x")
    (place / "mounts").mkdir()
    monkeypatch.chdir(place)
    assert main(["mounts", "b"]) == 0
    assert mounted[0].source == "mounts"


# --- how it ends -----------------------------------------------------------------------------


def raising(exc: BaseException) -> Callable[[object], int]:
    def run(_arguments: object) -> int:
        raise exc

    return run


@pytest.mark.parametrize(
    ("exc", "ending"),
    [
        (MountFailure("no\nway"), (32, "no\\nway")),
        (PermissionError(13, "Denied", "/a"), (1, "/a: Denied")),
        (KeyError(1), (4, "a mistake in tmemfs, please report it: KeyError(1)")),
        (KeyboardInterrupt(), (8, "interrupted")),
    ],
)
def test_each_ending_is_a_line_and_a_code(
    exc: BaseException,
    ending: tuple[int, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(status, "run", raising(exc))
    assert main(["status"]) == ending[0]
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"tmemfs: {ending[1]}"


def test_a_mistake_of_ours_shows_where_it_happened(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(status, "run", raising(ZeroDivisionError()))
    assert main(["status"]) == 4
    assert "Traceback" in capsys.readouterr().err


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tmemfs", "stats"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "tmemfs: unknown command 'stats'; did you mean 'status'?\n"


def test_a_reader_that_had_enough_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as broken:
        done = subprocess.run(
            [sys.executable, "-m", "tmemfs", "status", "--json"],
            stdout=broken,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")


def test_reading_figures_loads_no_filesystem() -> None:
    """The command line stays quick, and a fork in it has one thread."""
    program = (
        "import sys; from tmemfs.cli.commands import drop, mount, set, status, top, umount, warm; "
        "print(sorted({'pyfuse3', 'trio', 'lz4', 'rich'}.intersection(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
