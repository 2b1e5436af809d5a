"""`tmemfs check`: one line for each thing, and an exit code that says whether it will do."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command import environment

from tmemfs import config
from tmemfs.cli.main import main
from tmemfs.cli.system import machine, preflight, probe, swaptools, watermarks
from tmemfs.cli.system.machine import Finding, Level
from tmemfs.linux import loops, system
from tmemfs.linux.loops import Loop, SwapDevice
from tmemfs.swap import safety

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

MIB = 1 << 20
GIB = 1 << 30

# The command, and what it leaves of the trial in the process that ran it.
WITHOUT_A_TRACE = """
import os, sys, threading
from pathlib import Path
from tmemfs.cli.main import main

def state():
    locked = [line for line in Path("/proc/self/status").open() if line.startswith("VmLck")]
    spared = Path("/proc/self/oom_score_adj").read_text()
    group = Path("/proc/self/autogroup")
    shared = group.read_text() if group.exists() else ""
    run_as = os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0), shared
    return run_as, spared, locked, threading.active_count()

before = state()
code = main(["check"])
assert state() == before, (before, state())
sys.exit(code)
"""


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The files of /proc and /sys, all empty until they are set."""
    contents: dict[str, str] = {}
    monkeypatch.setattr(machine, "_read", lambda path: contents.get(path, ""))
    monkeypatch.setattr(system, "_text", lambda path: contents.get(path, ""))
    return contents


def test_one_aligned_line_for_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [Finding(Level.OK, "FUSE", "is there"), Finding(Level.WARNING, "zswap", "is on")]
    asked = []

    def findings(*, budget: int, overflow: bool) -> list[Finding]:
        asked.append((budget, overflow))
        return found

    monkeypatch.setattr(machine, "findings", findings)
    assert main(["check"]) == 0
    assert capsys.readouterr() == ("ok       FUSE   is there\nwarning  zswap  is on\n", "")
    found.append(Finding(Level.MISSING, "root", "run it as root"))
    assert main(["check", "--overflow", "--budget", "3M"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "missing  root   run it as root"
    assert asked == [(config.default_budget(), False), (3 * MIB, True)]


def test_a_budget_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--budget", "much"]) == 2
    assert "'much' is not a size" in capsys.readouterr().err


def test_this_machine() -> None:
    """Whatever it has, each is said in a line, and nothing of the trial is left in the process."""
    # One of its own: other tests leave threads here.
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_A_TRACE],
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
        start_new_session=True,  # whose priority nobody else changes
    )
    assert (done.stderr, done.returncode in (0, 1)) == ("", True)
    lines = done.stdout.splitlines()
    assert all(line.startswith(("ok ", "warning ", "missing ")) for line in lines)
    missing = any(line.startswith("missing ") for line in lines)
    assert done.returncode == int(missing)
    topics = ("FUSE", "loop device", "direct I/O", "discard", "zswap", "watermark_boost")
    for topic in (*topics, *probe.VITAL):
        assert f"  {topic} " in done.stdout


@pytest.mark.parametrize(
    ("step", "done", "level"),
    [
        ("lock_memory", True, Level.OK),
        ("lock_memory", False, Level.MISSING),
        ("real_time", False, Level.WARNING),
        ("io_flusher", False, Level.WARNING),
    ],
)
def test_what_the_daemon_may_do_is_tried(
    step: str, done: bool, level: Level, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safety, "secure", lambda _size: [safety.Step(step, done, "a line")])
    assert steps()[0] == Finding(level, step, "a line")


def test_a_trial_that_fails_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_size: int) -> None:
        raise MemoryError

    monkeypatch.setattr(safety, "secure", fail)
    assert steps()[0].level is Level.WARNING


def steps() -> list[Finding]:
    return list(machine.daemon_steps(budget=GIB, overflow=False))


@pytest.mark.parametrize(
    ("free", "overflow", "level"),
    [
        (GIB + 80 * MIB, False, Level.OK),
        (GIB + 80 * MIB, True, Level.MISSING),
        (GIB + 104 * MIB, True, Level.OK),
        (GIB, False, Level.MISSING),
        (-GIB, False, Level.MISSING),
    ],
)
def test_room_for_the_budget(
    free: int, overflow: bool, level: Level, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As much more than it leaves to others.
    monkeypatch.setattr(system, "physical_memory", lambda: 16 * GIB)
    monkeypatch.setattr(system, "available_memory", lambda: GIB + free)
    found = {step.topic: step for step in machine.daemon_steps(budget=GIB, overflow=overflow)}
    assert found["reserve"].level is level
    if level is Level.MISSING:
        assert "smaller --budget" in found["reserve"].text


def test_an_install_without_the_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "EXTENSION", "_no_such_module")
    found = {step.topic: step for step in steps()}
    assert found["requests"].level is Level.MISSING
    assert machine.discard().level is Level.WARNING
    assert "libfuse3-dev" in found["requests"].text


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


def test_what_the_kernel_holds_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watermarks, "SETTINGS", str(tmp_path))
    monkeypatch.setattr(system, "physical_memory", lambda: 10 * GIB)
    (tmp_path / "min_free_kbytes").write_text("67584\n")
    finding = machine.min_free()
    assert finding.level is Level.WARNING
    wanted = finding.text.rpartition("=")[2].rstrip("'")
    assert int(wanted) == 10 * GIB // 100 // 1024
    (tmp_path / "min_free_kbytes").write_text(wanted)
    assert machine.min_free().level is Level.OK


@pytest.mark.parametrize(
    ("boost", "min_free", "safe"),
    [
        ("15000", "4096", False),
        ("15000", "65535", False),
        ("15000", "65536", True),
        ("0", "4096", True),
        (None, "4096", True),  # a kernel before 5.0
    ],
)
def test_the_boost_of_the_water_marks(
    boost: str | None,
    min_free: str,
    safe: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watermarks, "SETTINGS", str(tmp_path))
    monkeypatch.setattr(system, "physical_memory", lambda: 4 * GIB)
    (tmp_path / "min_free_kbytes").write_text(f"{min_free}\n")
    if boost is not None:
        (tmp_path / "watermark_boost_factor").write_text(f"{boost}\n")
    finding = machine.watermark_boost()
    assert watermarks.may_stop() != safe
    if safe:
        assert finding.level is Level.OK
    else:
        assert finding.level is Level.MISSING
        assert "'sysctl vm.watermark_boost_factor=0'" in finding.text
        assert "'sysctl vm.min_free_kbytes=65536'" in finding.text


def test_other_swap(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, zram = (SwapDevice(device, GIB, 0, 100) for device in ("/dev/loop0", "/dev/zram0"))
    loop = Loop(ours.device, (7, 0), "/m/.tmemfs/swap/a", True)
    monkeypatch.setattr(loops, "attached", lambda: [loop])
    monkeypatch.setattr(loops, "swaps_on", lambda _: [ours])
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
