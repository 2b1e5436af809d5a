"""What /sys/block and /proc/swaps say, read from copies of them."""

from pathlib import Path

import pytest

from tmemfs import loops
from tmemfs.loops import Loop, SwapDevice

SWAPS = """\
Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority
/dev/sda2                               partition\t1048572\t\t512\t\t-2
/dev/loop1                              partition\t131068\t\t89392\t\t7
/dev/loop10p1                           partition\t1024\t\t0\t\t-3
/var/a\\040swap\\040file                  file\t\t2048\t\t0\t\t-4
"""


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with the loop devices 1, 2 and 10; device 3 is attached to nothing."""
    files = {"loop1": "/m/.tmemfs/swap/a", "loop2": "/mm/f", "loop10": "/m/.tmemfs/swap/b c"}
    for name, file in files.items():
        (tmp_path / name / "loop").mkdir(parents=True)
        (tmp_path / name / "loop" / "backing_file").write_text(f"{file}\n")
        (tmp_path / name / "loop" / "dio").write_text("1\n" if name == "loop1" else "0\n")
        (tmp_path / name / "queue").mkdir()
        limit = "4096\n" if name == "loop1" else "0\n"
        (tmp_path / name / "queue" / "discard_max_bytes").write_text(limit)
    (tmp_path / "loop3").mkdir()
    (tmp_path / "swaps").write_text(SWAPS)
    monkeypatch.setattr(loops, "SYS_BLOCK", str(tmp_path))
    monkeypatch.setattr(loops, "PROC_SWAPS", str(tmp_path / "swaps"))
    return tmp_path


def test_swap_devices() -> None:
    found = loops.swap_devices()
    assert list(found) == ["/dev/sda2", "/dev/loop1", "/dev/loop10p1", "/var/a swap file"]
    assert found["/dev/loop1"] == SwapDevice("/dev/loop1", 131068 << 10, 89392 << 10, 7)


def test_a_kernel_without_swap(machine: Path) -> None:
    (machine / "swaps").unlink()
    assert loops.swap_devices() == {}
    assert loops.swaps_on("/m") == []


def test_loop_devices_of_a_file_and_of_a_mount() -> None:
    one = Loop("/dev/loop1", "/m/.tmemfs/swap/a", dio=True)
    ten = Loop("/dev/loop10", "/m/.tmemfs/swap/b c", dio=False)
    assert loops.loop_devices("/m") == loops.loop_devices("/m/") == [one, ten]
    assert loops.loop_devices("/m/.tmemfs/swap/b c") == [ten]
    assert loops.loop_devices("/m/.tmemfs/swap/b") == []
    assert [loop.name for loop in loops.loop_devices("/")] == ["loop1", "loop2", "loop10"]


def test_a_device_that_is_detached_meanwhile_is_left_out(machine: Path) -> None:
    (machine / "loop1" / "loop" / "dio").unlink()
    assert [loop.name for loop in loops.loop_devices("/m")] == ["loop10"]


def test_discard() -> None:
    one, ten = loops.loop_devices("/m")
    assert one.takes_discards()
    assert not ten.takes_discards()
    assert not Loop("/dev/loop7", "/f", dio=True).takes_discards()


def test_swap_on_a_mount_also_on_a_part_of_a_device() -> None:
    assert [swap.device for swap in loops.swaps_on("/m")] == ["/dev/loop1", "/dev/loop10p1"]
    assert [swap.device for swap in loops.swaps_on("/m/.tmemfs/swap/a")] == ["/dev/loop1"]
    assert loops.swaps_on("/mm") == []
