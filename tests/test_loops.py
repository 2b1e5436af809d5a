"""What /sys and /proc/swaps say, read from copies of them, for a caller who may open no device.

Then a loop device is known by its path alone. Those that can be asked are in
`tests/swap/test_what_is_open.py`.
"""

from pathlib import Path

import pytest

from tmemfs.linux import blockdevices, loops, system
from tmemfs.linux.loops import Loop, SwapDevice

SWAPS = """\
Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority
/dev/sda2                               partition\t1048572\t\t512\t\t-2
/dev/loop1                              partition\t131068\t\t89392\t\t7
/dev/loop10p1                           partition\t1024\t\t0\t\t-3
/dev/mapper/crypt\\040ed                 partition\t1024\t\t0\t\t-5
/var/a\\040swap\\040file                  file\t\t2048\t\t0\t\t-4
"""
FILES = {"loop1": "/m/.tmemfs/swap/a", "loop2": "/mm/f", "loop10": "/m/.tmemfs/swap/b c"}
OURS, OTHER = (0, 41), (0, 42)


def mount(device: tuple[int, int], mountpoint: str) -> system.Mount:
    return system.Mount(1, 1, device, mountpoint, frozenset(), "fuse.tmemfs", "s", frozenset())


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with the loop devices 1, 2 and 10; device 3 is attached to nothing."""
    disks = tmp_path / "sys" / "block"
    numbers = tmp_path / "sys" / "dev" / "block"
    for place in (disks, numbers, names := tmp_path / "sys" / "class" / "block"):
        place.mkdir(parents=True)

    def add(where: Path, number: str) -> None:
        where.mkdir(parents=True)
        (where / "dev").write_text(f"{number}\n")
        (numbers / number).symlink_to(where)
        (names / where.name).symlink_to(where)

    for name, file in FILES.items():
        add(disks / name, f"7:{name.removeprefix('loop')}")
        (disks / name / "loop").mkdir()
        (disks / name / "loop" / "backing_file").write_text(f"{file}\n")
        (disks / name / "loop" / "dio").write_text("1\n" if name == "loop1" else "0\n")
        (disks / name / "queue").mkdir()
        limit = "4096\n" if name == "loop1" else "0\n"
        (disks / name / "queue" / "discard_max_bytes").write_text(limit)
    add(disks / "loop3", "7:3")
    add(disks / "sda2", "8:2")
    add(disks / "loop10" / "loop10p1", "259:0")
    (disks / "loop10" / "loop10p1" / "partition").write_text("1\n")
    add(disks / "crypt ed", "253:0")
    (disks / "crypt ed" / "slaves").mkdir()
    (disks / "crypt ed" / "slaves" / "loop2").symlink_to(disks / "loop2")
    (tmp_path / "swaps").write_text(SWAPS)
    monkeypatch.setattr(blockdevices, "SYS", str(tmp_path / "sys"))
    monkeypatch.setattr(loops, "DEV", str(tmp_path / "dev"))
    monkeypatch.setattr(loops, "PROC_SWAPS", str(tmp_path / "swaps"))
    mounts = [mount(OURS, "/m"), mount(OTHER, "/mm"), mount((0, 1), "/")]
    monkeypatch.setattr(system, "read_mounts", lambda: mounts)
    return tmp_path


def names(found: list[Loop]) -> list[str]:
    return [loop.name for loop in found]


def test_swap_devices() -> None:
    found = loops.swap_devices()
    assert list(found)[:3] == ["/dev/sda2", "/dev/loop1", "/dev/loop10p1"]
    assert list(found)[3:] == ["/dev/mapper/crypt ed", "/var/a swap file"]
    assert found["/dev/loop1"] == SwapDevice("/dev/loop1", 131068 << 10, 89392 << 10, 7)


def test_a_kernel_without_swap(machine: Path) -> None:
    (machine / "swaps").unlink()
    assert loops.swap_devices() == {}
    assert [loops.swaps_on(loop) for loop in loops.on(OURS)] == [[], []]


def test_the_loop_devices_of_a_mount() -> None:
    one, ten = loops.on(OURS)
    assert one == Loop(f"{loops.DEV}/loop1", (7, 1), "/m/.tmemfs/swap/a", dio=True)
    assert ten == Loop(f"{loops.DEV}/loop10", (7, 10), "/m/.tmemfs/swap/b c", dio=False)
    assert names(loops.on(OTHER)) == ["loop2"]
    assert loops.on((0, 43)) == []
    assert names(loops.attached()) == ["loop1", "loop2", "loop10"]


def test_a_mount_that_is_mounted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = [mount(OURS, "/elsewhere"), mount(OURS, "/m")]
    monkeypatch.setattr(system, "read_mounts", lambda: mounts)
    assert names(loops.on(OURS)) == ["loop1", "loop10"]


def test_a_device_that_is_detached_meanwhile_is_left_out(machine: Path) -> None:
    (machine / "sys" / "block" / "loop1" / "loop" / "dio").unlink()
    assert names(loops.on(OURS)) == ["loop10"]


def test_a_node_that_is_another_device(machine: Path) -> None:
    (machine / "dev").mkdir()
    (machine / "dev" / "loop1").symlink_to("/dev/null")
    assert loops.on(OURS)[0].file is None


def test_discard() -> None:
    one, ten = loops.on(OURS)
    assert one.takes_discards()
    assert not ten.takes_discards()
    assert not Loop("/dev/loop7", (7, 7), "/f", dio=True).takes_discards()


def test_swap_on_a_device_on_a_part_of_one_and_on_what_is_stacked_on_one() -> None:
    found = {loop.name: [swap.device for swap in loops.swaps_on(loop)] for loop in loops.attached()}
    assert found == {
        "loop1": ["/dev/loop1"],
        "loop2": ["/dev/mapper/crypt ed"],
        "loop10": ["/dev/loop10p1"],
    }
