"""The command `tmemfs` run as people run it: as a program, with a source and a mountpoint."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from as_root import Outcome

import tmemfs
from tmemfs.linux import system

PACKAGE_PARENT = Path(tmemfs.__file__).parent.parent
COMMAND = (sys.executable, "-m", "tmemfs")


@dataclass(frozen=True)
class Place:
    """A source with a file in it, and a mountpoint."""

    source: Path
    mountpoint: Path

    def run(self, *argv: object, code: int = 0, **options: object) -> Outcome:
        """Run the command; it must end with `code`."""
        return run(*COMMAND, *argv, code=code, **options)

    def mount(self, *options: object, code: int = 0) -> Outcome:
        """Mount with a small budget and `options`."""
        return self.run(
            "mount", self.source, self.mountpoint, "--budget", "16M", *options, code=code
        )

    @property
    def entry(self) -> system.Mount | None:
        """What the table of mounts has for the mountpoint."""
        return system.mount_at(str(self.mountpoint))

    @property
    def pid(self) -> int:
        """The daemon."""
        figures = json.loads((self.mountpoint / ".tmemfs" / "status.json").read_text())
        return int(figures["pid"])

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the daemon by a signal, and wait for its end."""
        pid = self.pid
        daemon = os.pidfd_open(pid)
        signal.pidfd_send_signal(daemon, number)
        await_end(daemon)
        os.close(daemon)


def run(*argv: object, code: int | None = 0, path: str = "", **options: object) -> Outcome:
    """Run a program, which finds the package; it must end with `code`, if that is one.

    With `path`, a directory, its programs are found before the system's.
    """
    done = subprocess.run(
        [str(word) for word in argv],
        capture_output=True,
        text=True,
        check=False,
        env=environment(path),
        **options,  # type: ignore[call-overload]
    )
    outcome = Outcome(done.returncode, done.stdout, done.stderr)
    assert code in (None, done.returncode), outcome
    return outcome


def environment(path: str = "") -> dict[str, str]:
    """What a program needs to find the package and, first of all, the programs in `path`."""
    first = f"{path}:" if path else ""
    own = {"PYTHONPATH": str(PACKAGE_PARENT), "PATH": f"{first}{os.environ['PATH']}"}
    return os.environ | own


def await_end(daemon: int) -> None:
    """Wait until the process behind a pidfd has ended."""
    poll = select.poll()
    poll.register(daemon, select.POLLIN)
    assert poll.poll(60_000), "the daemon goes on"


@contextmanager
def new_place(tmp_path: Path) -> Iterator[Place]:
    """A place with nothing mounted; what a failed test left there is taken away."""
    place = Place(tmp_path / "the source", tmp_path / "the mountpoint")
    place.source.mkdir()
    place.mountpoint.mkdir()
    (place.source / "file").write_text("from the source")
    yield place
    # A daemon ends when its mount is gone.
    for mountpoint in (place.mountpoint, place.source):
        while system.mount_at(str(mountpoint)) is not None:
            system.unmount(str(mountpoint), lazy=True)
