"""The mount command: what it asks of the daemon, from each way of calling it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

import tmemfs
from tmemfs.cli import background
from tmemfs.cli.main import main
from tmemfs.cli.system import preflight
from tmemfs.config import MountConfig, SwapSpec
from tmemfs.errors import MountFailure

Run = Callable[[MountConfig, Callable[[], None]], None]


@pytest.fixture(autouse=True)
def as_root_with_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "FUSE_DEVICE", os.devnull)
    monkeypatch.setattr(preflight, "is_root", lambda: True)


@pytest.fixture
def places(tmp_path: Path) -> tuple[str, str]:
    """A source with blanks in its name, and a mountpoint."""
    (tmp_path / "a source").mkdir()
    (tmp_path / "mnt").mkdir()
    return str(tmp_path / "a source"), str(tmp_path / "mnt")


def use_daemon(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    daemon = SimpleNamespace(run=run)
    monkeypatch.setitem(sys.modules, "tmemfs.daemon", daemon)
    monkeypatch.setattr(tmemfs, "daemon", daemon, raising=False)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[MountConfig]:
    """What the daemon was asked to serve; it does so at once, in this process."""
    configs: list[MountConfig] = []

    def run(config: MountConfig, on_ready: Callable[[], None]) -> None:
        configs.append(config)
        on_ready()

    use_daemon(monkeypatch, run)
    # Where the daemon runs has tests of its own.
    monkeypatch.setattr(background, "start", lambda serve, log=None: serve(lambda: None))
    return configs


def test_everything_that_can_be_asked_for(
    places: tuple[str, str], served: list[MountConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [
        "mount", "--budget", "64M", "--reserve=1M", "--page-size=4K",
        "--swap", "a=1M", "--swap", "b=2M",
        "-o", "noexec,swap=c=3M", "-o", "fsname=x\\,y,attr_timeout=0", *places, "-v",
    ]  # fmt: skip
    assert main(argv) == 0
    (config,) = served
    assert config == MountConfig(
        source=places[0],
        mountpoint=places[1],
        budget=64 << 20,
        reserve=1 << 20,
        page_size=4096,
        swaps=(SwapSpec("c", 3 << 20), SwapSpec("a", 1 << 20), SwapSpec("b", 2 << 20)),
        attr_timeout=0.0,
        fuse_options=frozenset({"fsname=x\\,y", "subtype=tmemfs", "allow_other", "rw", "noexec"}),
    )
    assert capsys.readouterr().out == f"tmemfs: {places[0]} mounted on {places[1]}\n"


def test_a_long_option_wins_over_a_list(places: tuple[str, str], served: list[MountConfig]) -> None:
    assert main(["mount", "--budget", "2M", *places, "-o", "budget=1M"]) == 0
    assert served[0].budget == 2 << 20


def test_success_is_silent(
    places: tuple[str, str], served: list[MountConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["mount", *places]) == 0
    assert len(served) == 1
    assert capsys.readouterr() == ("", "")


def test_relative_paths_and_links_are_resolved(
    places: tuple[str, str], served: list[MountConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(places[0]).parent)
    Path("link").symlink_to("a source")
    assert main(["mount", "link", "./mnt/"]) == 0
    assert (served[0].source, served[0].mountpoint) == places


def test_the_argv_of_mount_fuse3(places: tuple[str, str], served: list[MountConfig]) -> None:
    assert main([*places, "-o", "rw,dev,suid"]) == 0
    assert served[0].fuse_options >= {"rw", "allow_other", "subtype=tmemfs"}


@pytest.mark.parametrize(
    ("written", "called", "holds"),
    [
        ("rw", "rw,dev,suid", set()),
        ("nosuid", "nosuid,dev", {"nosuid"}),
        ("nodev", "nodev,suid", {"nodev"}),
        ("suid", "suid,dev,suid", {"suid"}),
        ("dev", "dev,dev,suid", {"dev"}),
        ("suid,dev", "suid,dev,dev,suid", {"dev", "suid"}),
        ("nodev,nosuid", "nodev,nosuid", {"nodev", "nosuid"}),
    ],
)
def test_what_mount_fuse3_adds_was_not_asked_for(
    written: str, called: str, holds: set[str], places: tuple[str, str], served: list[MountConfig]
) -> None:
    assert main([*places, "-o", called]) == 0
    kept = {"suid", "dev", "nosuid", "nodev"}
    assert served[0].fuse_options & kept == holds
    served.clear()
    assert main(["mount", *places, "-o", written]) == 0
    assert served[0].fuse_options & kept == holds


@pytest.mark.parametrize("word", ["strictatime", "nodiratime", "lazytime", "mand", "dirsync"])
def test_what_would_do_nothing_is_refused(
    word: str, places: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["mount", *places, "-o", word]) == 2
    assert f"the option '{word}' would do nothing: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "read_only"),
    [(["-r"], True), (["-r", "-w"], False), (["-o", "ro"], True), (["-o", "ro", "-w"], False)],
)
def test_read_only_by_the_letter_and_by_the_list(
    options: list[str], read_only: bool, places: tuple[str, str], served: list[MountConfig]
) -> None:
    assert main([*places, *options]) == 0
    assert served[0].read_only is read_only


def test_the_letters_of_a_mount_helper(
    places: tuple[str, str], served: list[MountConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*places, "-n", "-v", "-s", "-o", "rw,what_is_this=3"]) == 0
    assert len(served) == 1
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(shutil.which("mount.fuse3") is None, reason="no mount.fuse3")
@pytest.mark.parametrize("options", ["rw", "ro,nosuid,nodev,noexec,user=joe,budget=64M,noauto"])
def test_what_mount_fuse3_really_calls(
    options: str,
    places: tuple[str, str],
    served: list[MountConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = tmp_path / "bin" / "tmemfs"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\nimport json, sys\n"
        f"json.dump(sys.argv[1:], open({str(tmp_path / 'argv')!r}, 'w'))\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    subprocess.run(
        [shutil.which("mount.fuse3"), *places, "-t", "fuse.tmemfs", "-o", options], check=True
    )
    argv = json.loads((tmp_path / "argv").read_text())
    assert argv[:3] == [*places, "-o"], "SOURCE MOUNTPOINT -o ..."
    assert main(argv) == 0
    assert (served[0].source, served[0].mountpoint) == places
    assert served[0].read_only is ("ro" in options.split(","))


# --- foreground and background ---------------------------------------------------------------


@pytest.mark.parametrize("flag", ["-f", "-d"])
def test_the_foreground(
    flag: str,
    places: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen: list[tuple[int, bool, bool]] = []
    debugs: list[bool] = []

    def run(config: MountConfig, on_ready: Callable[[], None]) -> None:
        on_ready()
        assert capsys.readouterr().out == f"tmemfs: {places[0]} mounted on {places[1]}\n"
        seen.append((os.getpid(), config.foreground, config.debug))

    use_daemon(monkeypatch, run)
    monkeypatch.setattr("tmemfs.cli.logs.to_stderr", lambda *, debug: debugs.append(debug))
    assert main(["mount", *places, flag, "-v"]) == 0
    assert seen == [(os.getpid(), True, flag == "-d")]
    assert debugs == [flag == "-d"]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_the_background(
    places: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending, end = os.pipe()

    def run(_config: MountConfig, on_ready: Callable[[], None]) -> None:
        os.close(end)
        (tmp_path / "pid").write_text(str(os.getpid()))
        on_ready()
        os.read(ending, 1)

    use_daemon(monkeypatch, run)
    assert main(["mount", *places]) == 0
    pid = int((tmp_path / "pid").read_text())
    assert os.getsid(pid) == pid
    os.close(end)
    os.close(ending)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("flags", [[], ["-f"]])
def test_why_it_failed(
    flags: list[str],
    places: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(config: MountConfig, _on_ready: Callable[[], None]) -> None:
        raise MountFailure(f"{config.mountpoint}: not today")

    use_daemon(monkeypatch, run)
    monkeypatch.setattr("tmemfs.cli.logs.to_stderr", lambda *, debug: None)
    assert main(["mount", *places, *flags]) == 32
    assert capsys.readouterr().err == f"tmemfs: {places[1]}: not today\n"


def test_a_library_that_is_missing(
    places: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tmemfs.daemon", None)
    monkeypatch.delattr(tmemfs, "daemon", raising=False)
    monkeypatch.setattr("tmemfs.cli.logs.to_stderr", lambda *, debug: None)
    assert main(["mount", *places, "-f"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("tmemfs: cannot load what a mount needs: ")
    assert err.count("\n") == 1


def test_what_cannot_be_mounted_starts_nothing(
    places: tuple[str, str], served: list[MountConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["mount", places[0], places[1] + "/none"]) == 32
    assert capsys.readouterr().err == f"tmemfs: {places[1]}/none: the mountpoint does not exist\n"
    assert served == []
