"""A real tree, many times the budget, reads back as it is while others change it.

Untouched files must be exactly as they were made. A file that is replaced by renaming must be one
of its versions, whole. A file that is rewritten in place must be of one version page by page, and
one that is cut must have nothing in it that was never there.
"""

import multiprocessing
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

import pytest
from mounting import Mounted, drop_kernel_caches, mounted, wait_for

pytestmark = pytest.mark.root

FILES = int(os.environ.get("TMEMFS_TEST_FILES", "10000"))
MIB = int(os.environ.get("TMEMFS_TEST_MIB", "200"))
BUDGET = "--budget=32M"
PART = 16  # of the files, one in so many fits the budget
PAGE = 4096
CHANGING = 10
FORK = multiprocessing.get_context("fork")


class Content:
    """What is in files: told from a number, quickly made, and shrinking to some part of itself."""

    def __init__(self, seed: int) -> None:
        source = random.Random(seed)
        words = [source.randbytes(96) for _ in range(16)]
        self._block = b"".join(source.randbytes(48) + source.choice(words) for _ in range(1 << 14))

    def of(self, number: int, size: int) -> bytes:
        """`size` bytes that differ from those of any other number, with a hole in some."""
        head = b"file %d, %d bytes\n" % (number, size)
        start = number * 7919 % (len(self._block) // 2)
        body = self._block[start:] + self._block[:start]
        whole = head + body * (size // len(body) + 1)
        if number % 17 == 0:
            whole = whole[: size // 3] + bytes(size // 3) + whole[size // 3 :]
        return whole[:size]


def sizes() -> list[int]:
    """As in real trees: most files are small, and some few hold most of the bytes."""
    source = random.Random(5)
    drawn = [source.lognormvariate(8, 2) for _ in range(FILES)]
    scale = (MIB << 20) / sum(drawn)
    return [int(size * scale) for size in drawn]


class Tree:
    """The untouched files of a directory, and the digest of each."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.digests: dict[str, bytes] = {}
        content = Content(1)
        for number, size in enumerate(sizes()):
            name = f"d{number % 97}/s{number % 13}/f{number}"
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            data = content.of(number, size)
            path.write_bytes(data)
            self.digests[name] = digest(data)

    def wrong(self, place: Path, every: int = 1) -> list[str]:
        """The names of those that are not below `place` as they were made."""
        return [
            name
            for name in list(self.digests)[::every]
            if digest((place / name).read_bytes()) != self.digests[name]
        ]


def digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()


# -- files that change ------------------------------------------------------------------------


def page_of(number: int, version: int, index: int) -> bytes:
    """A page that says what it is, and whose bytes follow from that."""
    head = b"changing %d version %d page %d " % (number, version, index)
    return (head + digest(head).hex().encode() * 150)[:PAGE]


def whole(number: int, version: int) -> bytes:
    """A version of a file: as many pages as its version says, and their digest at the end."""
    data = b"".join(page_of(number, version, index) for index in range(1 + version % 23))
    return data + digest(data)


def is_whole(data: bytes) -> bool:
    return digest(data[:-16]) == data[-16:]


def is_page(data: bytes, number: int, index: int) -> bool:
    """Whether this is a page of some version of that file (or the start of one)."""
    fields = data.split(b" ", 6)
    if len(fields) < 6 or fields[:2] != [b"changing", b"%d" % number]:
        return False
    return data == page_of(number, int(fields[3]), index)[: len(data)]


IN_PLACE = 37 * PAGE


class Changer:
    """A process that replaces, rewrites, cuts and renames files below `place` until it is told."""

    def __init__(self, place: Path, first: int) -> None:
        self.place = place
        self.numbers = range(first, first + CHANGING)
        self._rounds = FORK.Value("i", 0)
        self._stop = FORK.Event()
        self._process = FORK.Process(target=self._run)

    def start(self) -> None:
        self._round(0)
        self._process.start()

    def stop(self) -> None:
        """End it, and check that it had work and did it."""
        self._stop.set()
        self._process.join(60)
        assert self._process.exitcode == 0
        assert self._rounds.value > 1

    def _run(self) -> None:
        while not self._stop.is_set():
            self._round(self._rounds.value + 1)
            self._rounds.value += 1

    def _round(self, version: int) -> None:
        for number in self.numbers:
            for kind, change in KINDS.items():
                change(self.place / f"{kind}{number}", number, version)
                # So that there is something left of the machine for who reads.
                self._stop.wait(0.002)


def replace(path: Path, number: int, version: int) -> None:
    """Whole at any moment: made beside it, and renamed over it."""
    new = path.with_name(path.name + ".new")
    new.write_bytes(whole(number, version))
    new.rename(path)


def rewrite(path: Path, number: int, version: int) -> None:
    """Page by page, in place."""
    with open(path, "r+b" if version else "wb", buffering=0) as file:
        for index in range(IN_PLACE // PAGE):
            file.write(page_of(number, version, index))


def cut(path: Path, number: int, version: int) -> None:
    """Cut to a length, then extended again page by page."""
    with open(path, "r+b" if version else "wb", buffering=0) as file:
        file.truncate(version * 1000 % 9 * PAGE)
        file.seek(0, os.SEEK_END)
        for index in range(file.tell() // PAGE, 12):
            file.write(page_of(number, version, index))


def move(path: Path, number: int, version: int) -> None:
    """Always under one of two names."""
    other = path.with_name(path.name + ".other")
    if not version:
        path.write_bytes(whole(number, number))
    elif version % 2:
        path.rename(other)
    else:
        other.rename(path)


KINDS = {"replaced": replace, "rewritten": rewrite, "cut": cut, "moved": move}


def bad_versions(place: Path, numbers: range) -> Iterator[str]:
    """The changing files below `place` that are like none of their versions now."""
    for number in numbers:
        if not is_whole((place / f"replaced{number}").read_bytes()):
            yield f"replaced{number} is no version of itself"
        for kind in ("rewritten", "cut"):
            data = (place / f"{kind}{number}").read_bytes()
            if kind == "rewritten" and len(data) != IN_PLACE:
                yield f"rewritten{number} has {len(data)} bytes"
            for index in range(len(data) // PAGE):
                if not is_page(data[index * PAGE : (index + 1) * PAGE], number, index):
                    yield f"{kind}{number}: page {index} is none of its versions"
        found = _read_moved(place / f"moved{number}")
        if found is not None and found != whole(number, number):
            yield f"moved{number} has changed"


def _read_moved(path: Path) -> bytes | None:
    for name in (path, path.with_name(path.name + ".other")):
        try:
            return name.read_bytes()
        except FileNotFoundError:
            continue
    return None  # renamed back and forth just then


@contextmanager
def changing(*changers: Changer) -> Iterator[None]:
    for changer in changers:
        changer.start()
    try:
        yield
    finally:
        for changer in changers:
            changer.stop()


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    root = tmp_path_factory.mktemp("tree") / "source"
    root.mkdir()
    return Tree(root)


def test_every_byte_cold_and_warm_while_others_change_files(tree: Tree, tmp_path: Path) -> None:
    with mounted(tree.root, tmp_path / "m", BUDGET) as mount:
        through, behind = Changer(mount.path, 0), Changer(tree.root, 1000)
        drop_kernel_caches()
        with changing(through, behind):
            # Cold, all of them; then, out of the pool, as many as it can hold.
            for every in (1, PART, PART):
                assert tree.wrong(mount.path, every) == []
                for changer in (through, behind):
                    assert list(bad_versions(mount.path, changer.numbers)) == []
                drop_kernel_caches()
        # When they have come to rest, both sides see the same, as soon as the kernel does not
        # believe any more what it has heard of names (entry_timeout).
        wait_for("both are the same", lambda: not differences(mount, (through, behind)))
        assert mount.pool("cache")["found_gets"] > FILES // PART // 2
        assert mount.status()["reclaim"]["evicted_pgs"] > 0


def differences(mount: Mounted, changers: tuple[Changer, ...]) -> list[str]:
    """The changing files that are not the same through the mount and in the directory."""
    names = [
        name
        for changer in changers
        for number in changer.numbers
        for kind in KINDS
        for name in (f"{kind}{number}", f"{kind}{number}.other")
        if (mount.source / name).exists()
    ]
    assert len(names) == len(changers) * CHANGING * len(KINDS)
    return [
        name
        for name in names
        if (mount.path / name).read_bytes() != (mount.source / name).read_bytes()
    ]


def test_the_names_are_the_same(tree: Tree, tmp_path: Path) -> None:
    with mounted(tree.root, tmp_path / "m", BUDGET) as mount:
        assert sorted(_walk(mount.path)) == sorted(_walk(tree.root))


def _walk(top: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    for place, directories, names in os.walk(top):
        yield os.path.relpath(place, top), sorted(directories), sorted(names)
