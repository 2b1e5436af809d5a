"""A name that cannot be looked at is listed all the same, and fails by itself."""

import errno
import os
import subprocess
from pathlib import Path

import pytest
from faulty import over_faulty
from mounting import drop_kernel_caches

pytestmark = pytest.mark.root

ERRORS = [
    *(errno.EACCES, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ELOOP),
    *(errno.EPERM, errno.EOVERFLOW, errno.ENXIO, errno.ETIMEDOUT),
]


@pytest.mark.parametrize("code", ERRORS, ids=errno.errorcode.get)
def test_one_bad_entry(code: int, tmp_path: Path) -> None:
    with over_faulty(tmp_path) as (backing, mount):
        for name in ("a", "bad", "c"):
            (backing.under / name).write_text(name)
        backing.inject("bad", "lookup", error=code)
        drop_kernel_caches()
        assert sorted(os.listdir(mount.path)) == ["a", "bad", "c"]
        listed = subprocess.run(["ls", "-l", mount.path], capture_output=True, check=False)
        assert os.strerror(code).encode() in listed.stderr
        assert listed.stdout.count(b"\n") == 4
        with pytest.raises(OSError, match="bad") as caught:
            os.stat(mount.path / "bad")
        assert caught.value.errno == code
        assert (mount.path / "c").read_text() == "c"
        backing.mend()
        drop_kernel_caches()
        assert (mount.path / "bad").read_text() == "bad"
