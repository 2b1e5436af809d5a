"""Several commands at once for one volume, one overflow file, one mountpoint: one of them wins.

TMEMFS_ROUNDS sets how many times each is tried.
"""

import os
import re
import subprocess
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import loop_swap
import pytest
from as_root import Outcome
from command import COMMAND, environment, run
from loop_swap import loop_devices, used_swap
from mounting import mounted

from tmemfs.cli.system import swapvolume
from tmemfs.linux import loops, system

pytestmark = [pytest.mark.root, pytest.mark.swap]

ROUNDS = int(os.environ.get("TMEMFS_ROUNDS", "2"))
PRIVATE = Path(swapvolume.PRIVATE)

_numbers = count()


def at_once(*commands: tuple[object, ...]) -> list[Outcome]:
    """How each of several commands ended that were started together."""
    children = [
        subprocess.Popen(
            [*COMMAND, *map(str, argv)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        for argv in commands
    ]
    said = [child.communicate(timeout=120) for child in children]
    return [Outcome(c.returncode, *s) for c, s in zip(children, said, strict=True)]


def one_won(outcomes: list[Outcome]) -> tuple[int, list[str]]:
    """Which one did, and what the others said."""
    winners = [number for number, outcome in enumerate(outcomes) if outcome.code == 0]
    assert len(winners) == 1, outcomes
    others = [outcome for outcome in outcomes if outcome.code]
    assert all((o.code, o.out, o.err.count("\n")) == (32, "", 1) for o in others), outcomes
    return winners[0], [outcome.err for outcome in others]


@pytest.fixture
def names() -> Iterator[list[str]]:
    """Names of volumes that nobody else has; whatever is left of them is taken away."""
    names = [f"once{os.getpid()}-{next(_numbers)}" for _ in range(4)]
    yield names
    for name in names:
        if (PRIVATE / name).exists():
            subprocess.run([*COMMAND, "swapoff", name, "--force"], check=False, env=environment())


def swap_on(place: Path) -> list[str]:
    """The devices on the files of a mount that are swap, each on a file of its own."""
    devices = loop_devices(place)
    files = [loop.file for loop in loops.attached() if loop.device in devices]
    assert len(set(files)) == len(devices)
    return [device for device in devices if used_swap(device) is not None]


@pytest.mark.parametrize("commands", [2, 4])
def test_one_name(commands: int, names: list[str]) -> None:
    name = names[0]
    argv = ("swapon", name, "--size=64M", "--budget=72M")
    for _ in range(ROUNDS):
        outcomes = at_once(*[argv] * commands)
        winner, said = one_won(outcomes)
        (device,) = swap_on(PRIVATE / name)
        assert outcomes[winner].out == f"{device}\n"
        assert set(said) == {f"tmemfs: {name}: is on already: {device}\n"}
        run(*COMMAND, "swapoff", name)
        assert loop_devices(PRIVATE / name) == []
        assert not (PRIVATE / name).exists()


@pytest.mark.parametrize("commands", [2, 4])
def test_one_volume_of_a_mount_that_is_there(
    commands: int, names: list[str], tmp_path: Path
) -> None:
    name = names[0]
    (tmp_path / "source").mkdir()
    with mounted(tmp_path / "source", tmp_path / "m", "--budget=16M", f"--swap={name}=8M") as mount:
        argv = ("swapon", name, "--mountpoint", mount.path)
        for _ in range(ROUNDS):
            _, said = one_won(at_once(*[argv] * commands))
            (device,) = swap_on(mount.path)
            assert set(said) == {f"tmemfs: {name}: is on already: {device}\n"}
            run(*COMMAND, "swapoff", name, "--mountpoint", mount.path)
            assert loop_devices(mount.path) == []


def test_one_volume_by_two_paths(names: list[str], tmp_path: Path) -> None:
    """No lock is the same, and the volume is open for writing once."""
    name = names[0]
    for place in ("source", "twice"):
        (tmp_path / place).mkdir()
    with mounted(tmp_path / "source", tmp_path / "m", "--budget=16M", f"--swap={name}=8M") as mount:
        loop_swap.run("mount", "--bind", mount.path, tmp_path / "twice")
        try:
            for _ in range(ROUNDS):
                places = (mount.path, tmp_path / "twice")
                _, (said,) = one_won(
                    at_once(*[("swapon", name, "--mountpoint", place) for place in places])
                )
                assert re.search(r": (is on|has a loop device|is in use) already", said)
                assert len(swap_on(tmp_path)) == 1
                run(*COMMAND, "swapoff", name)
                assert loop_devices(tmp_path) == []
        finally:
            loop_swap.run("umount", tmp_path / "twice")


@pytest.mark.parametrize("commands", [2, 4])
def test_different_names_with_one_overflow_file(
    commands: int, names: list[str], tmp_path: Path
) -> None:
    """Who loses leaves the file alone, which others may have made."""
    overflow = tmp_path / "overflow"
    sizes = ("--size=64M", "--budget=16M", "--overflow", overflow)
    for _ in range(ROUNDS):
        winner, said = one_won(at_once(*[("swapon", n, *sizes) for n in names[:commands]]))
        assert set(said) == {f"tmemfs: {overflow}: another tmemfs has its overflow there\n"}
        assert overflow.stat().st_blocks * 512 >= 64 << 20
        assert len(swap_on(PRIVATE)) == 1
        run(*COMMAND, "swapoff", names[winner])
        assert not any((PRIVATE / name).exists() for name in names)
        overflow.unlink()


def test_on_and_off_again(names: list[str]) -> None:
    """Whatever the order: it is on whole, or off whole."""
    name = names[0]
    on = ("swapon", name, "--size=8M", "--budget=16M")
    for _ in range(ROUNDS):
        at_once(on, ("swapoff", name), on, ("swapoff", name))
        mount = system.mount_at(str(PRIVATE / name))
        assert len(swap_on(PRIVATE / name)) == (mount is not None)
        if mount is not None:
            run(*COMMAND, "swapoff", name)
        assert not (PRIVATE / name).exists()


def test_one_mountpoint(tmp_path: Path) -> None:
    for place in ("source", "m"):
        (tmp_path / place).mkdir()
    argv = ("mount", tmp_path / "source", tmp_path / "m", "--budget=16M")
    for _ in range(ROUNDS):
        outcomes = at_once(*[argv] * 3, (tmp_path / "source", tmp_path / "m", "-o", "budget=16M"))
        _, said = one_won(outcomes)
        line = f"tmemfs: {tmp_path}/m: {tmp_path}/source is already mounted there by tmemfs\n"
        assert set(said) == {line}
        mounts = [m for m in system.tmemfs_mounts() if m.mountpoint == f"{tmp_path}/m"]
        assert len(mounts) == 1
        run(*COMMAND, "umount", tmp_path / "m")
