"""Directories as people have them: local, behind a server or a program, or layered.

    with source("sshfs", place) as far:
        ...   # far.path is the directory, far.behind the same files where they really are

Each is taken away at the end, also after a failure.
"""

import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from as_root import NOBODY, tmpfs_at
from mounting import SECONDS, wait_for

from tmemfs.linux import system

_SERVER = "/usr/lib/openssh/sftp-server"


@dataclass(frozen=True)
class Source:
    """A directory at `path`; what is in it is really in `behind`."""

    path: Path
    behind: Path


@contextmanager
def plain(place: Path) -> Iterator[Source]:
    """A directory of this machine's disk."""
    yield Source(*[_made(place / "plain")] * 2)


@contextmanager
def bindfs(place: Path) -> Iterator[Source]:
    """A filesystem in user space that goes by path."""
    _needs("bindfs")
    behind, path = _made(place / "behind"), _made(place / "bindfs")
    with _served(path, ["bindfs", "-f", behind, path]):
        yield Source(path, behind)


@contextmanager
def sshfs(place: Path, *, user: int = 0, options: str = "") -> Iterator[Source]:
    """Another machine, as far as anybody can tell, whose server runs as `user`."""
    _needs("sshfs", _SERVER)
    behind, path = _made(place / "behind"), _made(place / "sshfs")
    script = place / "ssh"
    become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
    script.write_text(f"#!/bin/sh\nexec {shlex.join([*become, _SERVER])}\n")
    script.chmod(0o755)
    behind.chmod(0o777)
    words = ",".join(filter(None, ("allow_other", f"ssh_command={script}", options)))
    with _served(path, ["sshfs", "-f", f"far:{behind}", path, "-o", words]):
        yield Source(path, behind)


def sshfs_of_nobody(place: Path) -> AbstractContextManager[Source]:
    """A server that is not root, where nobody can give anything away."""
    return sshfs(place, user=NOBODY)


@contextmanager
def overlay(place: Path) -> Iterator[Source]:
    """Layers: what is new is in the upper one."""
    path = _made(place / "overlay")
    with tmpfs_at(place / "layers") as layers:  # it cannot be over itself, and not over everything
        lower, upper, work = (_made(layers / name) for name in ("lower", "upper", "work"))
        words = f"lowerdir={lower},upperdir={upper},workdir={work}"
        subprocess.run(["mount", "-t", "overlay", "overlay", path, "-o", words], check=True)
        try:
            path.chmod(0o755)
            yield Source(path, path)
        finally:
            _unmount(path)


@contextmanager
def ext4(place: Path, size: int = 64 << 20, options: str = "") -> Iterator[Source]:
    """A disk of its own, of `size` bytes; `options` are mkfs's."""
    image, path = place / "image", _made(place / "ext4")
    with open(image, "wb") as file:
        file.truncate(size)
    words = ["mkfs.ext4", "-q", *shlex.split(options), image]
    subprocess.run(words, check=True)
    subprocess.run(["mount", "-o", "loop", image, path], check=True)
    try:
        yield Source(path, path)
    finally:
        _unmount(path)


SOURCES: dict[str, Callable[[Path], AbstractContextManager[Source]]] = {
    "plain": plain,
    "bindfs": bindfs,
    "sshfs": sshfs,
    "sshfs of nobody": sshfs_of_nobody,
    "overlay": overlay,
    "ext4": ext4,
}


def _needs(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"no {program}")


def _made(path: Path) -> Path:
    path.mkdir()
    path.chmod(0o755)
    return path


@contextmanager
def _served(path: Path, command: list[object]) -> Iterator[None]:
    process = subprocess.Popen([str(word) for word in command], start_new_session=True)
    try:
        wait_for(f"{path} is mounted", lambda: system.mount_at(str(path)) or process.poll())
        assert process.poll() is None
        yield
    finally:
        _unmount(path)
        process.terminate()
        process.wait(SECONDS)


def _unmount(path: Path) -> None:
    while system.mount_at(str(path)) is not None:
        system.unmount(str(path), lazy=True)
