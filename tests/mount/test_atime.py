"""Access times are the source's; with noatime, reads through the mount leave them alone."""

import os
from pathlib import Path

import pytest
from mounting import drop_kernel_caches, mounted

pytestmark = pytest.mark.root

OLD = (1_000_000_000, 1_100_000_000)  # a read moves such a time also where the source has relatime


@pytest.mark.parametrize("option", ["atime", "noatime"])
def test_reads_and_access_times(option: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "file").write_text("content")
    for path in (source / "sub" / "file", source / "sub"):
        os.utime(path, OLD)
    drop_kernel_caches()
    with mounted(source, tmp_path / "m", "-o", option) as mount:
        assert (mount.path / "sub" / "file").read_text() == "content"
        assert os.listdir(mount.path / "sub") == ["file"]
    for path in (source / "sub" / "file", source / "sub"):
        assert (os.stat(path).st_atime == OLD[0]) is (option == "noatime")
