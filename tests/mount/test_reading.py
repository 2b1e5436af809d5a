"""What a mount reads ahead, records, and keeps through one large read."""

import os
import subprocess
from pathlib import Path

import pytest
from mounting import drop_kernel_caches, mounted, wait_for
from page_data import KINDS, run

from tmemfs.cachefs.source.executor import CacheCounters
from tmemfs.linux import system

pytestmark = pytest.mark.root

MIB = 1 << 20


def read_ahead_kb(mountpoint: Path) -> int:
    mount = system.mount_at(str(mountpoint))
    assert mount is not None
    major, minor = mount.device
    return int(Path(f"/sys/class/bdi/{major}:{minor}/read_ahead_kb").read_text())


def test_the_kernel_reads_further_ahead(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    with mounted(tmp_path / "source", tmp_path / "m", "--budget=8M") as mount:
        assert read_ahead_kb(mount.path) == 1024
    with mounted(tmp_path / "source", tmp_path / "m", "-o", "readahead=0") as mount:
        assert read_ahead_kb(mount.path) < 1024


def test_a_trace_has_what_was_read(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_bytes(run(1, 8))
    (source / "b").write_bytes(run(2, 2))
    trace = tmp_path / "trace"
    options = ("--budget=8M", "-o", f"trace={trace},cache=none")
    with mounted(source, tmp_path / "m", *options) as mount:
        for name, offset, size in (("b", 0, 8192), ("a", 0, 100), ("a", 8192, 16384)):
            with open(mount.path / name, "rb", buffering=0) as file:
                file.seek(offset)
                assert len(file.read(size)) == size
    lines = trace.read_text().splitlines()
    assert lines == ["# tmemfs trace, pages of 8192 bytes", "0 0", "1 0", "1 1 2"]


def test_one_large_read_does_not_empty_the_pool(tmp_path: Path) -> None:
    """Read in order, and so read ahead of: a working set that is in use stays."""
    source = tmp_path / "source"
    source.mkdir()
    working = [f"used{number}" for number in range(64)]
    for _number, name in enumerate(working):
        (source / name).write_bytes(os.urandom(64 << 10))
    (source / "large").write_bytes(os.urandom(64 * MIB))

    def use() -> int:
        """Read the working set past the kernel's cache; how many pages missed."""
        drop_kernel_caches()
        before = mount.pool("cache")
        for name in working:
            assert (mount.path / name).read_bytes() == (source / name).read_bytes()
        after = mount.pool("cache")
        return int(after["gets"] - after["found_gets"] - before["gets"] + before["found_gets"])

    with mounted(source, tmp_path / "m", "--budget=16M") as mount:
        for _ in range(4):
            use()
        subprocess.run(["cat", mount.path / "large"], stdout=subprocess.DEVNULL, check=True)
        assert mount.status()["reclaim"]["evicted_pgs"] * 8192 > 40 * MIB
        assert use() < len(working)  # of eight times as many pages


def test_with_the_extension_and_without_it(native: bool, tmp_path: Path) -> None:
    """The same bytes, to the end of a file that is no whole page, and the status says which."""
    source = tmp_path / "source"
    source.mkdir()
    content = b"".join(run(1, 64, kind=kind) for kind in KINDS) + b"the end"
    (source / "file").write_bytes(content)
    before = "" if native else "import sys\nsys.modules['tmemfs.pages._reader'] = None\n"
    with mounted(source, tmp_path / "m", "--budget=16M", before=before) as mount:
        assert mount.status()["native_reader"] is native
        pages = -(-len(content) // mount.pool("cache")["page_size"])
        for _ in range(2):
            drop_kernel_caches()
            assert (mount.path / "file").read_bytes() == content
            # What was read is put behind the reader's back.
            wait_for("all is in the pool", lambda: mount.pool("cache")["pages"] >= pages)
        assert mount.pool("cache")["found_gets"] >= pages


def test_the_status_has_all_figures_of_the_cache(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    with mounted(tmp_path / "source", tmp_path / "m", "--budget=8M") as mount:
        found = mount.status()["cache"]
    gauges = {"open_files", "known_inodes", "open_descriptors", "threads_waiting"}
    assert set(found) == set(CacheCounters().as_dict()) | gauges
