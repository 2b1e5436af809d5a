"""What a test that is root can set up: a real mount, and somebody who is not root."""

import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from loop_swap import run

NOBODY = 65534


@contextmanager
def tmpfs_at(place: Path) -> Iterator[Path]:
    """An empty filesystem mounted at `place`, which is made; taken away if it is still there."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=False, stderr=subprocess.DEVNULL)


@contextmanager
def loop_on(file: Path) -> Iterator[str]:
    """A loop device on `file`, detached whatever `file` is called at the end."""
    device = run("losetup", "--find", "--show", "--direct-io=on", file)
    try:
        yield device
    finally:
        with suppress(OSError):
            run("swapoff", device)
        run("losetup", "--detach", device)


@dataclass(frozen=True)
class Outcome:
    """How a call in another process went: exit code, and what it wrote."""

    code: int
    out: str
    err: str


def as_nobody(call: Callable[[], int], prepare: Callable[[], None] = lambda: None) -> Outcome:
    """Run `call` in a process without privileges, after `prepare` in it with them.

    A fork, not a new program: the interpreter and the packages may be in a place that only root
    may read. What `call` needs must have been imported before.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        pid = os.fork()
        if pid == 0:
            code = 99
            try:
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                sys.stdout, sys.stderr = open(1, "w"), open(2, "w")  # noqa: SIM115
                prepare()
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
                code = call()
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        texts = [os.pread(file.fileno(), 1 << 20, 0).decode() for file in (out, err)]
    return Outcome(os.waitstatus_to_exitcode(status), *texts)


@contextmanager
def public_directory() -> Iterator[Path]:
    """A directory that everybody may enter; pytest's own are for its user only."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)
