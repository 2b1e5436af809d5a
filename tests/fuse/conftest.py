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
from tmemfs.fuse.controlfiles import Knob
from tmemfs.fuse.operations import Operations
from tmemfs.supervise import Failsafe
from tmemfs.volumes.swaps import Swaps

ABOUT = {"version": "1.2.3", "pid": 4711, "source": "/s", "mountpoint": "/m"}


class Handlers(SimpleNamespace):
    """A rig, what is over it, and who asks."""

    rig: Rig
    control: Control
    failsafe: Failsafe
    operations: Operations
    knob: SimpleNamespace
    ctx: SimpleNamespace


@pytest.fixture
def handlers(tmp_path: Path) -> Iterator[Handlers]:
    (tmp_path / "source").mkdir()
    rig = Rig(tmp_path / "source")
    failsafe = Failsafe()
    knob = SimpleNamespace(value=1 << 16)
    control = Control(
        rig.core,
        Swaps(rig.core, rig.client, [SwapSpec("swap0", 1 << 20)]),
        ABOUT,
        lambda: {"failsafe": failsafe.statistics()},
        [
            Knob(
                "readahead",
                lambda: knob.value,
                lambda size: setattr(knob, "value", size),
                0,
                1 << 20,
            )
        ],
    )
    yield Handlers(
        rig=rig,
        control=control,
        failsafe=failsafe,
        operations=Operations(rig.volume, control, failsafe, Timeouts(1.0, 2.0)),
        knob=knob,
        ctx=SimpleNamespace(uid=os.geteuid(), gid=os.getegid(), pid=os.getpid(), umask=0o22),
    )
    rig.close()
