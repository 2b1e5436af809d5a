"""What holds for every test: no unannounced warning, and a run that says what it left out."""

import logging
import os
import signal
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import hypothesis
import pytest
from memory_limit import memory_controller

from tmemfs.pages import reader

# A busy machine is no bug of the code under test; the test run as a whole is bounded anyway.
hypothesis.settings.register_profile("tmemfs", deadline=None)
hypothesis.settings.load_profile("tmemfs")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer the tests that take long: the same on more kinds of sources, in more modes."""
    parser.addoption("--thorough", action="store_true", help="run what takes long as well")


def pytest_configure() -> None:
    """Let the programs of tests be hung up on and interrupted, also where the run is not to be.

    That is so under nohup, and in the background of a script.
    """
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


# --- what this machine cannot run ------------------------------------------------------------


def _lacking_for_root() -> Iterator[str]:
    if os.geteuid() != 0:
        yield "not root"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        yield "no /dev/fuse"


def _lacking_for_swap() -> Iterator[str]:
    yield from _lacking_for_root()
    if not os.path.exists("/dev/loop-control"):
        yield "no loop devices"
    if not os.path.exists("/proc/swaps"):
        yield "a kernel without swap"
    if memory_controller() is None:
        yield "no memory cgroup"


NEEDS = {"root": _lacking_for_root, "swap": _lacking_for_swap}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, each with what it lacks; leave out what takes long."""
    if not config.getoption("thorough"):
        left = [item for item in items if item.get_closest_marker("thorough")]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if not item.get_closest_marker("thorough")]
    lacking = {marker: ", ".join(probe()) for marker, probe in NEEDS.items()}
    for item in items:
        for marker, reason in lacking.items():
            if reason and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter,
) -> Generator[None, object, object]:
    """Close with how many tests were skipped and why, or that none was."""
    result = yield
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ")
        for report in terminalreporter.getreports("skipped")
    )
    if not reasons:
        terminalreporter.write_line("no test was skipped")
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"skipped {count}: {reason}", yellow=True)
    return result


# --- with the extension and without it -------------------------------------------------------


@pytest.fixture(params=["extension", "python"])
def native(request: pytest.FixtureRequest) -> bool:
    """Whether the extension is to read runs of pages; first it, and then once more Python."""
    if request.param == "extension" and reader.native is None:
        pytest.skip("no tmemfs.pages._reader: no C compiler, or no headers of lz4")
    return bool(request.param == "extension")


@pytest.fixture
def each_reader(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of pages are read by the extension, and then once more by Python."""
    if not native:
        monkeypatch.setattr(reader, "native", None)


# --- a warning is a failure unless the test announced it -------------------------------------


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(f"{record.levelname} {record.name}: {record.getMessage()}")


@contextmanager
def _collected() -> Iterator[list[str]]:
    # A handler of its own: a test may clear or reconfigure caplog as it likes.
    collector = _Collector()
    logging.getLogger().addHandler(collector)
    try:
        yield collector.messages
    finally:
        logging.getLogger().removeHandler(collector)


def _announced(item: pytest.Item) -> tuple[str, ...] | None:
    """The texts that the test announced, () for any, None where it announced nothing."""
    marker = item.get_closest_marker("expects_log")
    return marker and marker.args


def _refuse_unannounced(item: pytest.Item) -> Generator[None, object, object]:
    with _collected() as messages:
        result = yield
    texts = _announced(item)
    if texts == ():
        return result
    surprises = [line for line in messages if not any(text in line for text in texts or ())]
    if surprises:
        pytest.fail("logged without announcing it:\n" + "\n".join(surprises), pytrace=False)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    return (yield from _refuse_unannounced(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    with _collected() as messages:
        result = yield from _refuse_unannounced(item)
    missing = [text for text in _announced(item) or () if not any(text in m for m in messages)]
    if missing:
        pytest.fail(f"announced but never logged: {missing}", pytrace=False)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    return (yield from _refuse_unannounced(item))
