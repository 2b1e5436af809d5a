"""One guest from its start to its end, and what became of it."""

import re
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.guest.image import QEMU, Image
from benchmarks.guest.job import SECONDS, make_job
from benchmarks.guest.rows import Row

PROCESSORS = 2
DISK = 1 << 30
BOOT_SECONDS = 90
ROOM = 16 << 20  # bytes, for the tables of a filesystem


@dataclass(frozen=True)
class Outcome:
    """How one guest ended, by the last line of `load.c`, and its figures before and after.

    *console* is all that was printed, with the stacks of what a hung one waited for.
    """

    end: str
    before: dict[str, int]
    after: dict[str, int]
    console: str

    @property
    def went_on(self) -> bool:
        """Whether the machine did: also where the kernel ended the load, for lack of memory."""
        return self.end in ("right", "on", "killed")

    def gained(self, figure: str) -> int:
        """How much a count has grown since the load began; 0 where a hung guest did not say."""
        return self.after[figure] - self.before[figure] if figure in self.after else 0

    @classmethod
    def of_console(cls, said: str) -> "Outcome":
        """From all that was printed. The kernel's own lines may be in between, and behind."""
        ends = re.findall(r"^end (\w.*)$", said, re.MULTILINE)
        lines = re.findall(r"^at (\d+(?: [a-z]+ \d+)+)$", said, re.MULTILINE)
        figures = [dict(re.findall(r"([a-z]+) (\d+)", f"seconds {line}")) for line in lines]
        numbers = [{name: int(text) for name, text in line.items()} for line in figures] or [{}]
        return cls(ends[-1] if ends else "silent", numbers[0], numbers[-1], said)


def run(row: Row, image: Image) -> Outcome:
    """Boot a guest that does what *row* says, and wait until it has switched itself off."""
    with tempfile.TemporaryDirectory(prefix="tmemfs-guest-", dir="/var/tmp") as directory:
        place = Path(directory)
        tree, job, disk = place / "job", place / "job.img", place / "disk.img"
        console = place / "console"
        tree.mkdir()
        make_job(tree, row)
        _make_file(job, sum(file.stat().st_size for file in tree.rglob("*")) * 5 // 4 + ROOM)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-d", tree, job], check=True)
        _make_file(disk, DISK)
        command: list[str | Path] = [
            *(QEMU, "-accel", "tcg", "-m", str(row.memory), "-smp", str(PROCESSORS)),
            *("-nodefaults", "-no-reboot", "-display", "none", "-serial", f"file:{console}"),
            *("-kernel", image.kernel, "-initrd", image.initrd),
            *("-append", "console=ttyS0 quiet panic=-1 root=/dev/vda rw init=/sbin/guest-init"),
            *_drive(image.root, "snapshot=on"),
            *_drive(job, "cache=unsafe"),
            *_drive(disk, "cache=unsafe"),
        ]
        # One that cannot even switch itself off has said on its console what there is to know.
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(
                command, stdin=subprocess.DEVNULL, check=True, timeout=SECONDS + BOOT_SECONDS
            )
        return Outcome.of_console(console.read_text(errors="replace").replace("\r", ""))


def _make_file(file: Path, size: int) -> None:
    with file.open("wb") as opened:
        opened.truncate(size)


def _drive(file: Path, how: str) -> tuple[str, str]:
    return "-drive", f"file={file},format=raw,if=virtio,{how}"
