"""The handlers over a temporary directory, without a kernel that asks them."""

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from rig import Rig

from tmemfs.config import SwapSpec
from tmemfs.fuse.attributes import Timeouts
from tmemfs.fuse.control import Control
from tmemfs.fuse.operations import Operations
from tmemfs.mount import Mount
from tmemfs.supervise import Failsafe
from tmemfs.swap.volumes import SwapVolumes

ABOUT = {"version": "1.2.3", "pid": 4711, "source": "/s", "mountpoint": "/m"}


class Handlers(SimpleNamespace):
    """A rig, what is over it, and who asks."""

    rig: Rig
    control: Control
    failsafe: Failsafe
    operations: Operations
    mount: Mount
    ctx: SimpleNamespace


@pytest.fixture
def handlers(tmp_path: Path) -> Iterator[Handlers]:
    (tmp_path / "source").mkdir()
    rig = Rig(tmp_path / "source")
    swaps = SwapVolumes(rig.core, rig.client, [SwapSpec("swap0", 1 << 20)])
    mount = Mount(rig.core, rig.volume, swaps, ABOUT, failsafe=Failsafe())
    control = Control(mount)
    yield Handlers(
        rig=rig,
        control=control,
        failsafe=mount.failsafe,
        mount=mount,
        operations=Operations(mount, control, Timeouts(1.0, 2.0)),
        ctx=SimpleNamespace(uid=os.geteuid(), gid=os.getegid(), pid=os.getpid(), umask=0o22),
    )
    rig.close()
