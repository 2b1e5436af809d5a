"""A real mount for as long as a test needs it, served by a process of its own."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tmemfs
from tmemfs.linux import system

SECONDS = 60
"""How long anything may take before it counts as stuck; what works takes far less."""

PLAIN = [sys.executable, "-m", "tmemfs"]
_RUN_MAIN = "\nimport sys\nfrom tmemfs.cli.main import main\nsys.exit(main())\n"


@dataclass
class Mounted:
    """What is mounted at `path`, the process that serves it, and what that has logged."""

    path: Path
    source: Path
    process: "subprocess.Popen[str]"
    log_file: Path

    @property
    def control(self) -> Path:
        return self.path / ".tmemfs"

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.control / "status.json").read_bytes())
        return found

    def pool(self, name: str) -> dict[str, Any]:
        [found] = [pool for pool in self.status()["pools"] if pool["name"] == name]
        return dict(found)

    def log(self) -> str:
        return self.log_file.read_text()

    def resident(self) -> int:
        """Bytes of memory that the serving process has now."""
        fields = Path(f"/proc/{self.process.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    def kill(self) -> None:
        """End the serving process as nobody can catch it, and wait until it is gone."""
        self.process.kill()
        self.process.wait(SECONDS)


@contextmanager
def mounted(
    source: Path, mountpoint: Path, *options: str, before: str = "", logs: bool = False
) -> Iterator[Mounted]:
    """Mount `source` on `mountpoint`, which is made, with the options of the command line.

    `before` is Python that the serving process runs first: to put a fault in. Unless `logs`,
    whatever the process writes to its log makes the test fail, and so does how it ends.
    """
    with suppress(FileExistsError):  # not even looked at: the mount on it may be dead
        os.mkdir(mountpoint)
    command = [sys.executable, "-c", before + _RUN_MAIN] if before else PLAIN
    root = str(Path(tmemfs.__file__).parents[1])
    log_file = mountpoint.parent / f"{mountpoint.name}.log"
    with open(log_file, "w") as log:
        process = subprocess.Popen(
            [*command, "mount", str(source), str(mountpoint), "-f", "-v", *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ | {"PYTHONPATH": root, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
    mount = Mounted(mountpoint, source, process, log_file)
    try:
        assert process.stdout is not None
        # It says so when the mount answers; where it cannot, this reads the end of the file.
        ready = process.stdout.readline()
        assert "mounted on" in ready, mount.log()
        yield mount
        if process.poll() is None:
            process.terminate()
            assert process.wait(SECONDS) == 0, mount.log()
            assert logs or not _said(mount.log()), mount.log()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]
        while system.mount_at(str(mountpoint)) is not None:
            system.unmount(str(mountpoint), lazy=True)


def _said(log: str) -> list[str]:
    return [line for line in log.splitlines() if "INFO" not in line]


def wait_for(what: str, condition: Callable[[], object]) -> None:
    """Return as soon as `condition()` is true; fails, naming `what`, when it never is."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.005)


def drop_kernel_caches() -> None:
    """Make the kernel forget every clean page, name and attribute that it caches."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")
