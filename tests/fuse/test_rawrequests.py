"""The request that pyfuse3 does not know: who is asked, and what is replied."""

import errno
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from types import SimpleNamespace

import pyfuse3
import pytest
import trio

import tmemfs
from tmemfs.fuse import rawrequests, session
from tmemfs.linux.syscalls import FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE

ROOT = pyfuse3.ROOT_INODE
FALLOCATE = 43
HOLE = FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE


class Kernel:
    """In the place of the extension: asks, and notes the replies."""

    def __init__(self) -> None:
        self.replies: dict[int, int] = {}
        self.asked = ContextVar("asked", default=None)

    def active(self) -> bool:
        return True

    def listen(self, begin, opcodes: bytes) -> None:
        assert FALLOCATE in opcodes
        self.begin = begin

    def ask(self, request: int, fh: int, mode: int, offset: int, length: int) -> None:
        body = struct.pack("=QQQII", fh, offset, length, mode, 0)
        self.begin(FALLOCATE, request, 0, body)

    def answer(self, request: int, error: int, body: bytes) -> None:
        assert request not in self.replies
        assert not body
        self.replies[request] = error

    async def replied(self, request: int) -> int:
        while request not in self.replies:
            await trio.lowlevel.checkpoint()
        return self.replies[request]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    kernel = Kernel()
    monkeypatch.setattr(session, "extension", kernel)
    return kernel


async def opened(handlers, path: str, flags: int = os.O_RDWR) -> int:
    """The handle of a file of the mount."""
    number = ROOT
    for name in path.split("/"):
        number = (await handlers.operations.lookup(number, name.encode(), handlers.ctx)).st_ino
    return (await handlers.operations.open(number, flags, handlers.ctx)).fh


async def test_a_request_reaches_its_volume(handlers, kernel: Kernel) -> None:
    rawrequests.serve(handlers.operations)
    (handlers.rig.root / "f").write_bytes(b"x" * 10_000)
    file = await opened(handlers, "f")
    kernel.ask(1, file, HOLE, 100, 5000)
    assert await kernel.replied(1) == 0
    assert (handlers.rig.root / "f").read_bytes() == b"x" * 100 + bytes(5000) + b"x" * 4900

    volume = await opened(handlers, ".tmemfs/swap/swap0")
    await handlers.operations.write(volume, 0, b"y" * 8192)
    kernel.ask(2, volume, HOLE, 4096, 4096)
    assert await kernel.replied(2) == 0
    assert bytes(await handlers.operations.read(volume, 0, 8192)) == b"y" * 4096 + bytes(4096)

    knob = await opened(handlers, ".tmemfs/budget")
    kernel.ask(3, knob, 0, 0, 10)
    kernel.ask(4, volume, 0, 0, 1 << 30)
    assert await kernel.replied(3) == errno.EOPNOTSUPP
    assert await kernel.replied(4) == errno.ENOSPC
    assert handlers.failsafe.count == 0
    await handlers.operations.release(file)


@pytest.mark.expects_log("handler fallocate failed")
async def test_a_mistake_is_an_eio(handlers, kernel: Kernel) -> None:
    rawrequests.serve(handlers.operations)
    kernel.ask(1, 4711, 0, 0, 10)  # a handle that nobody was given
    assert await kernel.replied(1) == errno.EIO
    assert handlers.failsafe.count == 1


@pytest.mark.expects_log("raw request failed")
async def test_a_mistake_before_the_handler_is_noted(kernel: Kernel) -> None:
    async def fail(*_: int) -> None:
        raise ValueError

    rawrequests.serve(SimpleNamespace(fallocate=fail))
    kernel.ask(1, 3, 4, 5, 6)
    assert await kernel.replied(1) == errno.EIO


@pytest.mark.parametrize(
    ("error", "reply"),
    [
        (pyfuse3.FUSEError(errno.ENOSPC), errno.ENOSPC),
        # ENOSYS would be the last answer that the kernel asks for.
        (pyfuse3.FUSEError(errno.ENOSYS), errno.EOPNOTSUPP),
    ],
    ids=repr,
)
async def test_every_error_is_a_reply(kernel: Kernel, error: Exception, reply: int) -> None:
    async def fail(*_: int) -> None:
        raise error

    rawrequests.serve(SimpleNamespace(fallocate=fail))
    kernel.ask(1, 3, 4, 5, 6)
    assert await kernel.replied(1) == reply


async def test_the_end_of_the_mount_is_a_reply(kernel: Kernel) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await rawrequests._answer(1, trio.sleep_forever())
    assert kernel.replies == {1: errno.EIO}


def test_the_extension_is_loaded_before_pyfuse3() -> None:
    """Else pyfuse3 finds libfuse's function, and no request ever comes."""
    program = (
        "import sys, tmemfs.daemon\n"
        "from tmemfs.fuse import session\n"
        "names = list(sys.modules)\n"
        "print(names.index('tmemfs.fuse._session') < names.index('pyfuse3'))\n"
        "print(session.active())\n"
    )
    root = str(Path(tmemfs.__file__).parents[1])
    out = subprocess.check_output([sys.executable, "-c", program], cwd=root, text=True)
    assert out.split() == ["True", "False"], "and without a session it is not active"
