"""An open file is one file, whatever takes its name on the server; and no pool mixes two."""

import os
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from as_root import public_directory
from command import COMMAND, run
from mounting import Mounted, drop_kernel_caches, mounted, wait_for
from rig import left_alone
from sources import SOURCES, Source, sshfs

pytestmark = pytest.mark.root

MIB = 1 << 20
SIZE = 4 * MIB
OLD, NEW = b"A" * SIZE, b"B" * SIZE
MODES = {
    "open": (),
    "none": ("cache=none",),
    "always": ("cache=always",),
    "writeback": ("writeback",),
}


class Place:
    """A mount over a source in which files go by path, and a file of it that is warm in part."""

    def __init__(self, source: Source, mount: Mounted, *, looks: bool, follows: bool) -> None:
        self.source, self.mount = source, mount
        self.follows = follows
        """whether an open file is seen to grow on the server"""
        self.looks = looks
        """whether a change on the server is seen at all"""

    def warm(self, name: str) -> Path:
        """Put an old file there, of which a part has been read through the mount."""
        behind = self.source.behind / name
        behind.write_bytes(OLD)
        os.utime(behind, (1_000_000_000, 1_000_000_000))
        left_alone(behind)
        path = self.mount.path / name
        with open(path, "rb") as file:
            assert file.read(MIB) == OLD[:MIB]
        drop_kernel_caches()
        return path

    def replace(self, name: str, content: bytes = NEW) -> None:
        """Put a new one in its place, on the server."""
        new = self.source.behind / f"{name}.new"
        new.write_bytes(content)
        os.utime(new, (1_000_000_100, 1_000_000_100))
        os.rename(new, self.source.behind / name)


@pytest.fixture(
    scope="module",
    params=[
        *(("sshfs", mode) for mode in MODES),
        ("bindfs", "open"),
        pytest.param(("bindfs", "writeback"), marks=pytest.mark.thorough),
    ],
    ids=", ".join,
)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    kind, mode = request.param
    # Who keeps names for 20 seconds does not hear of a change for as long.
    source = partial(sshfs, options="dir_cache=no") if kind == "sshfs" else SOURCES[kind]
    options = ",".join(("attr_timeout=0", "entry_timeout=0", *MODES[mode]))
    with (
        public_directory() as top,
        source(top) as far,
        mounted(far.path, top / "m", "--budget=64M", "-o", options) as mount,
    ):
        yield Place(far, mount, looks=mode != "always", follows=mode in ("open", "none"))
        assert mount.status()["failsafe"]["count"] == 0


def read_on(file: int, start: int) -> bytes:
    """What is left of a file, read in pieces; nothing more where an error ends it."""
    content = b""
    while start + len(content) < SIZE:
        try:
            piece = os.pread(file, 64 << 10, start + len(content))
        except OSError:
            break
        if not piece:
            break
        content += piece
    return content


def test_a_file_that_is_replaced_while_it_is_read(place: Place) -> None:
    path = place.warm("replaced")
    file = os.open(path, os.O_RDONLY)
    try:
        begun = os.pread(file, 512 << 10, 0)
        place.replace("replaced")
        drop_kernel_caches()
        rest = read_on(file, len(begun))
        assert begun + rest == OLD[: len(begun + rest)]
        assert len(rest) == SIZE - len(begun)
    finally:
        os.close(file)
    if place.looks:
        wait_for("the new one is seen", lambda: path.read_bytes() == NEW)
        drop_kernel_caches()
    assert path.read_bytes() in (OLD, NEW)[place.looks :]


@pytest.mark.parametrize("size", [10, 2 * SIZE])
def test_it_is_replaced_by_one_of_another_size(place: Place, size: int) -> None:
    """Where the new one is shorter, the kernel may end the old one there, as on the bare source."""
    name = f"resized to {size}"
    path = place.warm(name)
    file = os.open(path, os.O_RDONLY)
    try:
        begun = os.pread(file, 512 << 10, 0)
        place.replace(name, b"B" * size)
        drop_kernel_caches()
        os.stat(path)
        rest = read_on(file, len(begun))
        assert begun + rest == OLD[: len(begun + rest)]
        if size > SIZE:
            assert len(rest) == SIZE - len(begun)
    finally:
        os.close(file)
    if place.follows:
        wait_for("the new one is seen", lambda: path.read_bytes() == b"B" * size)


def test_a_small_file_is_replaced_before_it_is_opened_in_earnest(place: Place) -> None:
    """It was in memory as a whole when it was opened, and is not any more."""
    small = 4 * 8192
    path, behind = place.mount.path / "small", place.source.behind / "small"
    behind.write_bytes(OLD[:small])
    os.utime(behind, (1_000_000_000, 1_000_000_000))
    left_alone(behind)
    assert path.read_bytes() == OLD[:small]
    drop_kernel_caches()
    file = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        assert os.pread(file, 8192, 0) == OLD[:8192]
        place.replace("small", NEW[:small])
        run(*COMMAND, "drop", path)
        rest = b""
        with suppress(OSError):
            rest = os.pread(file, small, 8192)
        assert rest in (b"", OLD[8192:small])
    finally:
        os.close(file)
    if place.looks:
        wait_for("the new one is seen", lambda: path.read_bytes() == NEW[:small])


def test_both_are_open_and_read_in_turn(place: Place) -> None:
    """The kernel takes them for one file, and has one cache for both."""
    if not place.looks:
        return
    path = place.warm("both")
    old = os.open(path, os.O_RDONLY)
    try:
        assert os.pread(old, MIB, 0) == OLD[:MIB]
        place.replace("both")
        drop_kernel_caches()
        os.stat(path)
        wait_for("the new one is seen", lambda: _first(path) == b"B")
        new = os.open(path, os.O_RDONLY)
        try:
            for at in range(0, SIZE, 256 << 10):
                assert os.pread(old, 128 << 10, at) == OLD[: 128 << 10]
                assert os.pread(new, 256 << 10, at) == NEW[: 256 << 10]
        finally:
            os.close(new)
        assert path.read_bytes() == NEW
    finally:
        os.close(old)
    for _ in range(2):
        assert path.read_bytes() == NEW
        drop_kernel_caches()


def _first(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(1)


def test_a_file_that_is_removed_while_it_is_read(place: Place) -> None:
    path = place.warm("removed")
    file = os.open(path, os.O_RDONLY)
    try:
        begun = os.pread(file, 512 << 10, 0)
        (place.source.behind / "removed").unlink()
        drop_kernel_caches()
        rest = read_on(file, len(begun))
        assert begun + rest == OLD[: len(begun + rest)]
    finally:
        os.close(file)


def test_a_log_that_grows_is_followed(place: Place) -> None:
    """Not with writeback: there the kernel knows best where an open file ends."""
    behind = place.source.behind / "log"
    behind.write_bytes(b"")
    path = place.mount.path / "log"
    lines = [f"line {number}\n".encode() * 50 for number in range(5 if place.follows else 0)]
    with open(path, "rb", buffering=0) as file:
        seen = bytearray()

        def follow(length: int) -> bool:
            os.fstat(file.fileno())
            seen.extend(file.read(1 << 20))
            return len(seen) >= length

        for number, line in enumerate(lines):
            with open(behind, "ab") as log:
                log.write(line)
            wait_for("the line is there", partial(follow, len(b"".join(lines[: number + 1]))))
        assert seen == b"".join(lines)
