"""Starting a daemon: the starter returns when it serves, or says why it does not."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tmemfs.cli import background, logs
from tmemfs.errors import (
    InternalError,
    MountFailure,
    NotPermitted,
    TmemfsError,
    UsageError,
)

Ready = Callable[[], None]

# Earlier tests may have left idle threads of trio; the children here do not use them. The command
# itself forks with one thread.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture(autouse=True)
def no_system_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "SYSTEM_LOG", str(tmp_path / "no-log"))


@contextmanager
def daemon(before: Callable[[], None] = lambda: None) -> Iterator[int]:
    """A daemon that serves until the test is through with it; its pid."""
    ending, end = os.pipe()

    def serve(ready: Ready) -> None:
        os.close(end)
        before()
        ready()
        os.read(ending, 1)

    pid = background.start(serve)
    try:
        yield pid
    finally:
        os.close(end)
        os.close(ending)
        assert os.waitpid(pid, 0)[1] == 0


def failing(serve: background.Serve) -> TmemfsError:
    with pytest.raises(TmemfsError) as caught:
        background.start(serve)
    return caught.value


# --- it serves -------------------------------------------------------------------------------


def test_the_daemon_leaves_the_session_the_directory_and_the_terminal() -> None:
    with daemon() as pid:
        assert os.getsid(pid) == pid
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        places = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1, 2)}
        assert places == {os.devnull}


def test_until_it_is_ready_the_daemon_can_speak(capfd: pytest.CaptureFixture[str]) -> None:
    with daemon(before=lambda: os.write(2, b"fuse: a warning\n") and None):
        assert capfd.readouterr().err == "fuse: a warning\n"


def test_what_the_caller_left_open_is_closed() -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    with daemon():
        os.close(writing)
        assert os.read(reading, 1) == b""  # nobody else has it
    os.close(reading)


def test_an_error_after_it_was_ready_is_not_written_anywhere_else() -> None:
    """The pipe is closed then, and its number may be a file's."""
    reading, writing = os.pipe()

    def serve(ready: Ready) -> None:
        ready()
        # More descriptors than were ever open, so that the pipe's old number is among them.
        for _ in range(64):
            os.dup(writing)
        raise MountFailure("too late")

    pid = background.start(serve)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == MountFailure.exit_code
    os.close(writing)
    assert os.read(reading, 100) == b""
    os.close(reading)


# --- it does not come to that ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("exc", "kind", "message"),
    [
        (MountFailure("no such place"), MountFailure, "no such place"),
        (MountFailure("/a\nb: is no place"), MountFailure, "/a\\nb: is no place"),
        (MountFailure("/\udcff"), MountFailure, "/\\udcff"),
        (NotPermitted("not you"), NotPermitted, "not you"),
        (PermissionError(13, "Denied", "/a"), NotPermitted, "/a: Denied"),
        (KeyError("x"), InternalError, "a mistake in tmemfs, please report it: KeyError('x')"),
    ],
)
def test_why_it_failed_is_said_by_the_starter(
    exc: Exception, kind: type[TmemfsError], message: str
) -> None:
    def serve(_ready: Ready) -> None:
        raise exc

    error = failing(serve)
    assert type(error) is kind
    assert str(error) == message


def test_the_exit_code_is_the_one_of_the_failure() -> None:
    def serve(_ready: Ready) -> None:
        raise UsageError("budget: too small")

    assert failing(serve).exit_code == UsageError.exit_code


def test_a_daemon_that_is_killed_before_it_serves() -> None:
    def serve(_ready: Ready) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    error = failing(serve)
    assert isinstance(error, MountFailure)
    assert str(error) == "the daemon was ended by signal 9 before the mount answered"


def test_a_daemon_that_ends_without_ever_serving_is_a_failure() -> None:
    error = failing(lambda _ready: None)
    assert str(error) == "the daemon ended with code 0 before the mount answered"


def test_an_interrupt_ends_the_daemon_too() -> None:
    starter = os.getpid()

    def serve(_ready: Ready) -> None:
        os.kill(starter, signal.SIGINT)
        signal.pause()

    with pytest.raises(KeyboardInterrupt):
        background.start(serve)
    with pytest.raises(ChildProcessError):  # no child is left, not even a zombie
        os.waitpid(-1, os.WNOHANG)


# --- its log ---------------------------------------------------------------------------------


def test_the_daemon_logs_to_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "SYSTEM_LOG", str(tmp_path / "log"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(logs.SYSTEM_LOG)

        def warn() -> None:
            background._log.warning("a page of %d bytes", 4096)

        with daemon(before=warn) as pid:
            line = log.recv(1000).rstrip(b"\0").decode()
    assert line == f"<28>tmemfs[{pid}]: a page of 4096 bytes"  # 28: daemon.warning


def test_a_log_that_nobody_reads_does_not_stop_a_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "SYSTEM_LOG", str(tmp_path / "log"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(logs.SYSTEM_LOG)
    with daemon(before=lambda: background._log.warning("to nobody")) as pid:
        assert os.getsid(pid) == pid


def test_in_the_foreground_the_log_is_on_stderr() -> None:
    program = (
        "import logging; from tmemfs.cli import logs; logs.to_stderr(debug={debug}); "
        "logging.getLogger('tmemfs.x').debug('detail'); "
        "logging.getLogger('tmemfs.x').info('news')"
    )
    said = {
        debug: subprocess.run(
            [sys.executable, "-c", program.format(debug=debug)],
            capture_output=True,
            text=True,
            check=True,
        ).stderr
        for debug in (True, False)
    }
    assert said[False] == "tmemfs: INFO: news\n"
    assert said[True] == "tmemfs: DEBUG: detail\ntmemfs: INFO: news\n"
