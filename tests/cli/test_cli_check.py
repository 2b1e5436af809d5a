"""`tmemfs check`: one line for each thing, and an exit code that says whether it will do."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tmemfs import loops, safety, system
from tmemfs.cli import machine, preflight, swaptools
from tmemfs.cli.machine import Finding, Level
from tmemfs.cli.main import main
from tmemfs.loops import Loop, SwapDevice

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

GIB = 1 << 30


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The files of /proc and /sys, all empty until they are set."""
    contents: dict[str, str] = {}
    monkeypatch.setattr(machine, "_read", lambda path: contents.get(path, ""))
    return contents


def test_one_aligned_line_for_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [Finding(Level.OK, "FUSE", "is there"), Finding(Level.WARNING, "zswap", "is on")]
    asked = []

    def findings(*, overflow: bool) -> list[Finding]:
        asked.append(overflow)
        return found

    monkeypatch.setattr(machine, "findings", findings)
    assert main(["check"]) == 0
    assert capsys.readouterr() == ("ok       FUSE   is there\nwarning  zswap  is on\n", "")
    found.append(Finding(Level.MISSING, "root", "run it as root"))
    assert main(["check", "--overflow"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "missing  root   run it as root"
    assert asked == [False, True]


def test_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever it has, each is said in a line, and nothing of the trial is left in this process."""
    before = (os.sched_getscheduler(0), Path("/proc/self/oom_score_adj").read_text())
    assert main(["check"]) in (0, 1)
    out, err = capsys.readouterr()
    assert err == ""
    assert all(line.startswith(("ok ", "warning ", "missing ")) for line in out.splitlines())
    for topic in ("FUSE", "loop device", "direct I/O", "discard", "lock_memory", "zswap"):
        assert f"  {topic} " in out
    assert (os.sched_getscheduler(0), Path("/proc/self/oom_score_adj").read_text()) == before
    assert "VmLck:\t       0 kB" in Path("/proc/self/status").read_text()
    assert threading.active_count() == 1


@pytest.mark.parametrize(
    ("step", "done", "level"),
    [
        ("lock_memory", True, Level.OK),
        ("lock_memory", False, Level.MISSING),
        ("real_time", False, Level.MISSING),
        ("io_flusher", False, Level.WARNING),
    ],
)
def test_what_the_daemon_may_do_is_tried(
    step: str, done: bool, level: Level, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safety, "secure", lambda _size: [safety.Step(step, done, "a line")])
    assert list(machine.daemon_steps()) == [Finding(level, step, "a line")]


def test_a_trial_that_fails_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_size: int) -> None:
        raise MemoryError

    monkeypatch.setattr(safety, "secure", fail)
    (finding,) = machine.daemon_steps()
    assert finding.level is Level.WARNING


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((preflight, "FUSE_DEVICE"), (machine, "LOOP_CONTROL")):
        monkeypatch.setattr(module, name, "/nowhere")
    monkeypatch.setattr(swaptools, "TOOLS", ("sh", "no-such-tool"))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for check in (machine.root, machine.fuse, machine.loop_devices, machine.tools):
        assert check().level is Level.MISSING
    assert "no-such-tool not installed" in machine.tools().text
    assert "modprobe loop" in machine.loop_devices().text


@pytest.mark.parametrize(
    ("check", "path", "content", "level", "says"),
    [
        (machine.zswap, "/sys/module/zswap/parameters/enabled", "Y", Level.WARNING, "echo N"),
        (machine.zswap, "/sys/module/zswap/parameters/enabled", "N", Level.OK, "off"),
        (machine.zswap, "", "", Level.OK, "off"),
        (machine.hibernation, "/proc/cmdline", "ro resume=/dev/x", Level.WARNING, "/dev/x"),
        (machine.hibernation, "/proc/cmdline", "resume=/dev/x noresume", Level.OK, ""),
        (machine.overcommit, "/proc/sys/vm/overcommit_memory", "2", Level.WARNING, "swapoff"),
        (machine.overcommit, "/proc/sys/vm/overcommit_memory", "0", Level.OK, ""),
    ],
)
def test_settings(
    check: Callable[[], Finding],
    path: str,
    content: str,
    level: Level,
    says: str,
    files: dict[str, str],
) -> None:
    files[path] = content
    finding = check()
    assert finding.level is level
    assert says in finding.text


@pytest.mark.parametrize("overflow", [False, True])
def test_what_the_kernel_holds_back(
    overflow: bool, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "physical_memory", lambda: 10 * GIB)
    path = "/proc/sys/vm/min_free_kbytes"
    files[path] = "67584"
    finding = machine.reserve(overflow=overflow)
    assert finding.level is (Level.MISSING if overflow else Level.WARNING)
    wanted = finding.text.rpartition("=")[2].rstrip("'")
    files[path] = wanted
    assert machine.reserve(overflow=overflow).level is Level.OK


def test_other_swap(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, zram = (SwapDevice(device, GIB, 0, 100) for device in ("/dev/loop0", "/dev/zram0"))
    monkeypatch.setattr(
        loops, "loop_devices", lambda _: [Loop(ours.device, "/m/.tmemfs/swap/a", True)]
    )
    monkeypatch.setattr(loops, "swap_devices", lambda: {ours.device: ours})
    assert machine.other_swap().level is Level.OK
    monkeypatch.setattr(loops, "swap_devices", lambda: {s.device: s for s in (ours, zram)})
    assert machine.other_swap().level is Level.WARNING
    assert machine.other_swap().text.startswith("/dev/zram0 (priority 100); ")


@pytest.mark.parametrize(
    ("groups", "path"),
    [
        ("0::/a", "/sys/fs/cgroup/a/memory.max"),
        ("4:cpu:/b\n3:memory:/a\n0::/", "/sys/fs/cgroup/memory/a/memory.limit_in_bytes"),
    ],
)
def test_a_memory_limit(groups: str, path: str, files: dict[str, str]) -> None:
    files["/proc/self/cgroup"] = groups
    for unlimited in ("", "max", str(1 << 62)):
        files[path] = unlimited
        assert machine.memory_cgroup().level is Level.OK
    files[path] = str(64 << 20)
    assert "share 64M" in machine.memory_cgroup().text
