"""Mounts that the command line sees, without a daemon behind them."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tmemfs.linux import system
from tmemfs.linux.system import Mount

MEMORY = {
    "mem_limit": 1 << 30,
    "mem_used_total": 300 << 20,
    "mem_used_max": 310 << 20,
    "orig_data_size": 900 << 20,
    "compr_data_size": 280 << 20,
    "same_pages": 12,
    "huge_pages": 3,
    "metadata_bytes": 2 << 20,
    "rss_bytes": 340 << 20,
}
CACHE = {
    "name": "cache",
    "kind": "ephemeral",
    "page_size": 16384,
    "pages": 48000,
    "objects": 120,
    "orig_data_size": 750 << 20,
    "compr_data_size": 250 << 20,
    "mem_used_total": 256 << 20,
    "same_pages": 10,
    "huge_pages": 3,
    "metadata_bytes": 1 << 20,
    "puts": 50000,
    "good_puts": 49000,
    "no_mem_puts": 1000,
    "bad_puts": 0,
    "dup_puts_flushed": 5,
    "dup_puts_replaced": 6,
    "gets": 1000,
    "found_gets": 875,
    "flushs": 7,
    "flushs_found": 4,
    "flush_objs": 3,
    "flush_objs_found": 2,
    "corrupt_pages": 0,
}
SWAP = CACHE | {
    "name": "swap0",
    "kind": "persistent",
    "page_size": 4096,
    "orig_data_size": 0,
    "compr_data_size": 0,
    "mem_used_total": 0,
    "gets": 0,
    "found_gets": 0,
    "overflow_pages": 5,
}
FIGURES: dict[str, Any] = {
    "version": "0.1.0",
    "pid": 4711,
    "source": "/srv/slow",
    "mountpoint": "/elsewhere",
    "uptime_seconds": 93784.5,
    "memory": MEMORY,
    "pools": [CACHE, SWAP],
    "reclaim": {"evicted_pgs": 17, "evict_attempts": 2, "moved_pgs": 1, "cleaned_segments": 0},
    "cache": {
        "backing_reads": 21,
        "backing_read_bytes": 22 << 20,
        "backing_writes": 23,
        "backing_write_bytes": 24 << 20,
        "shared_reads": 25,
        "readahead_reads": 26,
        "readahead_pages": 27,
        "stale_objects": 28,
        "recalled_attributes": 33,
        "recalled_names": 34,
        "listed_directories": 35,
        "open_files": 29,
        "known_inodes": 30,
        "open_descriptors": 31,
        "threads_waiting": 32,
    },
    "lane": {"threads": 2, "parked": False, "grants": 1, "answered": 90, "handed_over": 7},
    "failsafe": {"count": 0, "last": None},
    "swaps": [
        {
            "name": "swap0",
            "size": 8 << 30,
            "overflow": "/var/lib/swap0",
            "overflow_pages": 5,
            "overflow_reads": 6,
            "overflow_writes": 7,
            "overflow_errors": 0,
        }
    ],
    "safety": [
        {"step": "lock_memory", "done": True, "text": "memory is locked"},
        {"step": "real_time", "done": False, "text": "may wait: grant CAP_SYS_NICE"},
    ],
    "discard": True,
    "store": "native",
    "native_reader": True,
}


@pytest.fixture
def figures() -> dict[str, Any]:
    """The figures, to be changed."""
    found: dict[str, Any] = json.loads(json.dumps(FIGURES))
    return found


@pytest.fixture
def without_swap() -> dict[str, Any]:
    """The figures of a mount without swap volumes."""
    return FIGURES | {"pools": [CACHE], "swaps": [], "safety": []}


AddMount = Callable[..., Path]


@pytest.fixture
def add_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AddMount:
    """Adds a directory that the table of mounts calls a tmemfs mount, with figures in it."""
    mounts: list[Mount] = []
    monkeypatch.setattr(system, "read_mounts", lambda: mounts)

    def add(
        name: str = "m", figures: object = FIGURES, fstype: str = system.FSTYPE, source: str = "/s"
    ) -> Path:
        place = tmp_path / name
        (place / ".tmemfs").mkdir(parents=True, exist_ok=True)
        if figures is not None:
            (place / ".tmemfs" / "status.json").write_text(json.dumps(figures))
        device = os.stat(place).st_dev
        mounts.append(
            Mount(
                mount_id=100 + len(mounts),
                parent_id=1,
                device=(os.major(device), os.minor(device)),
                mountpoint=str(place),
                options=frozenset({"rw"}),
                fstype=fstype,
                source=source,
                super_options=frozenset({"rw"}),
            )
        )
        return place

    return add
