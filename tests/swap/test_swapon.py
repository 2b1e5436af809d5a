"""`tmemfs swapon` and `tmemfs swapoff` on the real thing, and what goes wrong on the way."""

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import memory_pressure
import pytest
from as_root import Outcome, as_nobody
from command import COMMAND, await_end, environment, run
from loop_swap import detach, loop_devices, used_swap
from memory_limit import MemoryLimit
from mounting import mounted, wait_for

from tmemfs.cli.main import main
from tmemfs.cli.system import swapvolume
from tmemfs.linux import loops, system

# What main() imports when it is used, a process that drops its privileges may not find any more.
for command in ("swapon", "swapoff"):
    importlib.import_module(f"tmemfs.cli.commands.{command}")

pytestmark = [
    pytest.mark.root,
    pytest.mark.swap,
    # What runs without privileges is a fork of this process, and uses no thread of it.
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

MIB = 1 << 20
LIMIT = 24 * MIB  # of a program that keeps pages; the interpreter is in it
ROOM = 512 * MIB  # what comes back counts, and where it has no room the program is killed
SIZE = "160M"
BUDGET = "160M"
HIGHEST = "32767"  # else pages might go to other swap of this machine

_numbers = count()


@dataclass
class Swap:
    """A volume with a mount of its own, and the command on it."""

    name: str = field(default_factory=lambda: f"test{os.getpid()}-{next(_numbers)}")

    @property
    def mountpoint(self) -> Path:
        return Path(swapvolume.PRIVATE, self.name)

    @property
    def file(self) -> Path:
        return self.mountpoint / ".tmemfs" / "swap" / self.name

    def on(self, *options: object, code: int = 0, **how: object) -> Outcome:
        sizes = ("--size", SIZE, "--budget", BUDGET, "--priority", HIGHEST)
        return run(*COMMAND, "swapon", self.name, *sizes, *options, code=code, **how)

    def off(self, *options: object, code: int = 0) -> Outcome:
        return run(*COMMAND, "swapoff", self.name, *options, code=code)

    @property
    def device(self) -> str:
        (device,) = loop_devices(self.file)
        return device

    @property
    def used(self) -> int:
        return used_swap(self.device) or 0

    @property
    def daemon(self) -> int:
        """A pidfd of the daemon."""
        figures = json.loads((self.mountpoint / ".tmemfs" / "status.json").read_bytes())
        return os.pidfd_open(figures["pid"])

    def kill(self) -> None:
        daemon = self.daemon
        signal.pidfd_send_signal(daemon, signal.SIGKILL)
        await_end(daemon)
        os.close(daemon)

    def is_gone(self) -> bool:
        """Whether nothing is left of it."""
        assert loop_devices(self.file) == []
        assert system.mount_at(str(self.mountpoint)) is None
        assert not self.mountpoint.exists()
        return True

    def clear_away(self) -> None:
        """What a failed test left."""
        detach(self.file)
        while system.mount_at(str(self.mountpoint)) is not None:
            system.unmount(str(self.mountpoint), lazy=True)
        if self.mountpoint.exists():
            self.mountpoint.rmdir()


@pytest.fixture
def swap() -> Iterator[Swap]:
    swap = Swap()
    try:
        yield swap
    finally:
        swap.clear_away()


@pytest.fixture
def fakes(tmp_path: Path) -> str:
    """A directory whose programs are found before the system's."""
    (tmp_path / "bin").mkdir()
    return str(tmp_path / "bin")


def fake(directory: str, tool: str, script: str) -> None:
    """A program `tool`; `$REAL` in its script is the system's."""
    program = Path(directory, tool)
    program.write_text(f"#!/bin/sh\nREAL={shutil.which(tool)}\n{script}\n")
    program.chmod(0o755)


def waiting(begun: Path, go_on: Path) -> str:
    """What makes a script say that it runs, and wait until it is told to go on."""
    return f": >'{begun}'; while [ ! -e '{go_on}' ]; do sleep 0.02; done"


@dataclass
class Keeper:
    """A program with pages that have no room, which checks them when it is told to."""

    process: "subprocess.Popen[bytes]"
    limit: MemoryLimit

    def tell(self) -> None:
        """Have the pages checked."""
        assert self.process.stdin is not None
        os.write(self.process.stdin.fileno(), b"check\n")

    def says(self) -> bytes:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def all_are_right(self) -> bool:
        self.tell()
        return self.says() == b"0 wrong\n"


@contextmanager
def keeper(mib: int = 64) -> Iterator[Keeper]:
    """One of `mib` MiB, filled."""
    program = [sys.executable, Path(__file__).with_name("keeps_pages.py"), str(mib)]
    examples = str(Path(memory_pressure.__file__).parent)
    with (
        MemoryLimit(LIMIT) as limit,
        subprocess.Popen(
            limit.command(program),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": examples},
        ) as process,
    ):
        try:
            made = Keeper(process, limit)
            assert made.says() == b"filled\n"
            yield made
        finally:
            process.kill()


# --- there and back --------------------------------------------------------------------------


def test_one_command_and_back(swap: Swap) -> None:
    device = swap.on("--priority", "7").out.strip()
    assert device == swap.device
    (loop,) = [loop for loop in loops.attached() if loop.device == device]
    assert loop.dio
    assert loops.swap_devices()[device].priority == 7
    assert swap.mountpoint.stat().st_mode & 0o777 == 0o700
    daemon = swap.daemon
    assert swap.off() == Outcome(0, "", "")
    await_end(daemon)
    os.close(daemon)
    assert swap.is_gone()


def test_every_step_can_be_told(swap: Swap) -> None:
    on = swap.on("--verbose")
    assert on.out == f"{swap.device}\n"
    assert f"tmemfs: {swap.mountpoint} is mounted, with a budget of {BUDGET}\n" in on.err
    assert f"tmemfs: {swap.device} is on {swap.file}\n" in on.err
    assert f"tmemfs: {swap.device} is swap, discard: " in on.err
    assert "is unmounted, its daemon has ended\n" in swap.off("-v").err


def test_a_program_under_pressure(swap: Swap) -> None:
    swap.on()
    program = [sys.executable, memory_pressure.__file__, "--mib", "64"]
    with MemoryLimit(16 * MIB) as limit:
        done = subprocess.run(limit.command(program), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" 0 wrong") == 4
    swap.off()
    assert swap.is_gone()


def test_the_status_of_what_is_swapped_out(swap: Swap) -> None:
    swap.on()
    with keeper() as child:
        assert swap.used > 32 * MIB
        columns = "POOL,DEVICE,PRIO,USED,SIZE"
        status = run(*COMMAND, "status", "-Jb", "-o", columns, swap.mountpoint).out
        row = json.loads(status)["tmemfs"][1]
        assert row.pop("used") > 32 * MIB
        assert row.pop("prio") == loops.swap_devices()[swap.device].priority
        assert row == {"pool": swap.name, "device": swap.device, "size": 160 * MIB}
        assert child.all_are_right()


def test_of_a_mount_that_is_there(swap: Swap, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    options = ("--budget=64M", f"--swap={swap.name}=64M", "--swap=other=1M")
    with mounted(tmp_path / "source", tmp_path / "m", *options, logs=True) as mount:
        file = mount.control / "swap" / swap.name
        where = ("--mountpoint", mount.path)
        on = (*COMMAND, "swapon", swap.name, *where)
        try:
            assert "did you mean" in run(*COMMAND, "swapon", f"{swap.name}x", *where, code=2).err
            assert "has 64M; omit" in run(*on, "--size=32M", code=2).err
            assert "has none; " in run(*on, "--overflow", tmp_path / "o", code=2).err
            assert loop_devices(file) == []
            run(*on, "--size=64M", "--no-discard")
            assert used_swap(loop_devices(file)[0]) == 0
            err = run(*on, code=32).err
            assert err == f"tmemfs: {swap.name}: is on already: {loop_devices(file)[0]}\n"
            # It needs no mountpoint to be found again.
            swap.off()
            assert loop_devices(file) == []
            assert system.probe(str(mount.path)) is system.MountState.ALIVE
            assert str(file) in swap.off(*where, code=32).err
        finally:
            detach(file)


def test_it_is_on_once(swap: Swap) -> None:
    device = swap.on().out.strip()
    assert swap.on(code=32).err == f"tmemfs: {swap.name}: is on already: {device}\n"
    assert swap.device == device
    assert used_swap(device) is not None


def test_a_file_that_somebody_has_open(swap: Swap, tmp_path: Path) -> None:
    """Said at once, where losetup would try for ever."""
    (tmp_path / "source").mkdir()
    options = ("--budget=16M", f"--swap={swap.name}=8M")
    with mounted(tmp_path / "source", tmp_path / "m", *options) as mount:
        file = mount.control / "swap" / swap.name
        with open(file, "r+b"):
            err = run(*COMMAND, "swapon", swap.name, "--mountpoint", mount.path, code=32).err
        assert err == f"tmemfs: {file}: is in use already, somebody has it open for writing\n"
        assert loop_devices(file) == []


def test_a_size_that_the_budget_may_not_hold(swap: Swap) -> None:
    err = swap.on("--size", "160M").err
    assert f"tmemfs: {swap.name}: 160M can be swapped out, and the budget of 160M holds " in err
    fitting = err.partition("; use --size ")[2].partition(",")[0]
    swap.off()
    assert "can be swapped out, and the budget" not in swap.on("--size", fitting).err
    swap.off()


def test_a_mount_that_was_left_is_named_and_taken_away(swap: Swap) -> None:
    swap.on()
    detach(swap.file)
    assert "is mounted already; 'tmemfs swapoff " in swap.on(code=32).err
    swap.off()
    assert swap.is_gone()


def test_a_mount_with_swap_on_it_stays(swap: Swap) -> None:
    device = swap.on().out.strip()
    line = f"tmemfs: {swap.mountpoint}: is in use as swap ({device}); first 'tmemfs swapoff "
    assert run(*COMMAND, "umount", "--lazy", swap.mountpoint, code=32).err.startswith(line)
    assert "used as swap" in run(*COMMAND, "umount", swap.mountpoint, code=32).err
    assert used_swap(device) is not None
    swap.off()


def test_only_root_may(swap: Swap) -> None:
    for argv in (["swapon", swap.name, "--size", "1M"], ["swapoff", swap.name]):
        outcome = as_nobody(lambda argv=argv: main(argv))
        assert outcome.code == 1
        assert outcome.err == "tmemfs: swap can be turned on and off by root only\n"


# --- a step that fails -----------------------------------------------------------------------


@pytest.mark.parametrize("tool", ["losetup", "mkswap", "swapon"])
def test_a_step_that_fails_undoes_those_before(tool: str, swap: Swap, fakes: str) -> None:
    fake(fakes, tool, f"echo '{tool}: not today' >&2; echo 'and never' >&2; exit 1")
    outcome = swap.on(code=32, path=fakes)
    assert outcome == Outcome(32, "", f"tmemfs: {tool}: not today; and never\n")
    assert swap.is_gone()


def test_a_swapon_that_says_no_too_late(swap: Swap, fakes: str) -> None:
    fake(fakes, "swapon", '"$REAL" "$@"; exit 3')
    outcome = swap.on(code=32, path=fakes)
    assert "swapon /dev/loop" in outcome.err
    assert "ended with code 3" in outcome.err
    assert swap.is_gone()


def test_no_direct_io(swap: Swap, fakes: str) -> None:
    without = 'for word; do shift; [ "$word" = --direct-io=on ] || set -- "$@" "$word"; done'
    fake(fakes, "losetup", f'{without}\nexec "$REAL" "$@"')
    assert "gives no direct I/O" in swap.on(code=32, path=fakes).err
    assert swap.is_gone()


def test_no_loop_device_is_free(swap: Swap) -> None:
    """As in a container: the devices that there are, are not here."""
    hide = (
        "for device in /dev/loop[0-9]*; do mount --bind /dev/null $device; done\n"
        'mount --bind /dev/null /dev/loop-control && exec "$@"'
    )
    argv = ("swapon", swap.name, "--size", "1M", "--budget", "16M")
    inside = ("unshare", "--mount", "--propagation=private", "sh", "-c", hide, "sh")
    outcome = run(*inside, *COMMAND, *argv, code=32)
    assert outcome.err.startswith("tmemfs: losetup")
    assert outcome.err.count("\n") == 1
    assert swap.is_gone()


def test_an_overflow_file_that_is_new_goes_with_the_rest(
    swap: Swap, fakes: str, tmp_path: Path
) -> None:
    fake(fakes, "mkswap", "exit 1")
    swap.on("--overflow", tmp_path / "new", code=32, path=fakes)
    assert not (tmp_path / "new").exists()
    assert swap.is_gone()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_in_the_middle(
    number: signal.Signals, swap: Swap, fakes: str, tmp_path: Path
) -> None:
    begun, go_on = tmp_path / "begun", tmp_path / "go on"
    fake(fakes, "mkswap", f'{waiting(begun, go_on)}; exec "$REAL" "$@"')
    with subprocess.Popen(
        [*COMMAND, "swapon", swap.name, "--size", SIZE, "--budget", BUDGET],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(fakes),
    ) as command:
        wait_for("mkswap runs", begun.exists)
        command.send_signal(number)
        go_on.touch()
        assert command.communicate(timeout=60) == ("", "tmemfs: interrupted\n")
        assert command.returncode == 8
    assert swap.is_gone()


# --- swapoff ---------------------------------------------------------------------------------


def status_of_child(command: int) -> dict[str, str]:
    """The fields of /proc/PID/status of the only child of a process."""
    (child,) = Path(f"/proc/{command}/task/{command}/children").read_text().split()
    lines = Path(f"/proc/{child}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines)


def is_inside(command: int) -> bool:
    """Whether swapoff(2) waits for a page."""
    status = status_of_child(command)
    return status["Name"] == "swapoff" and status["State"].startswith("D")


def is_interrupted(command: int) -> bool:
    """Whether it has been sent SIGINT, which it cannot look at yet."""
    status = status_of_child(command)
    return bool(int(status["ShdPnd"], 16) & 1 << signal.SIGINT - 1)


def test_swapoff_interrupted_leaves_it_on(swap: Swap, fakes: str, tmp_path: Path) -> None:
    swap.on()
    begun, go_on = tmp_path / "begun", tmp_path / "go on"
    fake(fakes, "swapoff", f'{waiting(begun, go_on)}; exec "$REAL" "$@"')
    # Several, because the kernel goes through all pages of one before it looks for a signal.
    # Three of 64 MiB, their interpreters with them, would fill the volume to the brim.
    with keeper(48) as one, keeper(48) as two, keeper(48) as three:
        children = (one, two, three)
        for child in children:
            child.limit.resize(ROOM)
        device, daemon = swap.device, swap.daemon
        with subprocess.Popen(
            [*COMMAND, "swapoff", swap.name],
            stderr=subprocess.PIPE,
            text=True,
            env=environment(fakes),
        ) as command:
            wait_for("swapoff is run", begun.exists)
            # Or it would be through before it is interrupted.
            signal.pidfd_send_signal(daemon, signal.SIGSTOP)
            try:
                go_on.touch()
                wait_for("swapoff waits", lambda: is_inside(command.pid))
                command.send_signal(signal.SIGINT)
                wait_for("swapoff has the signal", lambda: is_interrupted(command.pid))
            finally:
                signal.pidfd_send_signal(daemon, signal.SIGCONT)
                os.close(daemon)
            _, err = command.communicate(timeout=60)
        assert command.returncode == 8, err
        assert err == f"tmemfs: {device}: interrupted; it is still on, and nothing is lost\n"
        assert used_swap(device)
        assert all(child.all_are_right() for child in children)
    swap.off()
    assert swap.is_gone()


def test_swapoff_without_room_is_refused(
    swap: Swap, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    swap.on()
    with keeper() as child:
        devices = loops.swap_devices
        monkeypatch.setattr(
            loops, "swap_devices", lambda: {swap.device: devices()[swap.device]}
        )  # not what other programs on this machine may have
        monkeypatch.setattr(system, "available_memory", lambda: MIB)
        assert main(["swapoff", swap.name]) == 32
        err = capsys.readouterr().err
        assert f"tmemfs: {swap.device}: " in err
        assert "are swapped out, and memory and other swap have 1M free; " in err
        assert used_swap(swap.device)
        monkeypatch.undo()
        child.limit.resize(ROOM)
        assert swap.off("--anyway") == Outcome(0, "", "")
        assert child.all_are_right()
    assert swap.is_gone()


# --- the daemon ------------------------------------------------------------------------------


def test_a_daemon_that_was_killed(swap: Swap) -> None:
    """What was swapped out is lost, and only that: the rest of the machine goes on."""
    swap.on()
    with keeper() as child:
        swap.kill()
        device = swap.device
        err = swap.off(code=32).err
        assert "the daemon is gone, and with it " in err
        assert err.endswith(f"; 'tmemfs swapoff {swap.name} --force' clears away what is left\n")
        stale = run(*COMMAND, "umount", swap.mountpoint, code=32).err
        assert f"is in use as swap ({device})" in stale
        child.limit.resize(ROOM)
        err = swap.off("--force").err
        assert err.startswith(f"tmemfs: {swap.name}: cleared away; ")
        assert "swapped out and are lost; processes" in err
        assert swap.is_gone()
        assert device not in loops.swap_devices()
        child.tell()
        assert child.process.wait(60) == -signal.SIGBUS
    # The same name can be used again.
    swap.on()
    swap.off()


def test_a_daemon_that_was_killed_where_its_pages_have_no_room(swap: Swap) -> None:
    """The kernel cannot even mark pages as lost without memory, and ends who has them."""
    swap.on()
    with keeper() as child:
        swap.kill()
        swap.off("--force")
        assert swap.is_gone()
        with suppress(BrokenPipeError):
            child.tell()
        assert child.process.wait(60) in (-signal.SIGBUS, -signal.SIGKILL)


def test_a_daemon_that_was_killed_and_its_mount_taken_away(swap: Swap) -> None:
    swap.on()
    swap.kill()
    system.unmount(str(swap.mountpoint), lazy=True)
    assert f"tmemfs: {swap.name}: cleared away; " in swap.off("--force").err
    swap.mountpoint.rmdir()
    assert not [loop for loop in loops.attached() if loop.path.endswith(swap.name)]


def test_a_daemon_that_was_stopped_goes_on(
    swap: Swap, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    swap.on()
    with keeper() as child:
        daemon = swap.daemon
        signal.pidfd_send_signal(daemon, signal.SIGSTOP)
        try:
            child.tell()
            # It waits, and so would swapoff, which says so instead.
            monkeypatch.setattr(system, "ANSWER_SECONDS", 2.0)
            assert main(["swapoff", swap.name]) == 32
            assert "the daemon does not answer, and swapoff would" in capsys.readouterr().err
            assert child.process.poll() is None
        finally:
            signal.pidfd_send_signal(daemon, signal.SIGCONT)
            os.close(daemon)
        assert child.says() == b"0 wrong\n"
        assert child.all_are_right()
    swap.off()
    assert swap.is_gone()
