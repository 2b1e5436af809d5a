"""examples/memory_pressure.py: it has to notice a wrong page, or it proves nothing."""

import signal
import subprocess
import sys

import lz4.block
import memory_pressure
import pytest
from memory_limit import MemoryLimit
from memory_pressure import PAGE, Pages, Report

MIB = 1 << 20


@pytest.fixture
def pages() -> Pages:
    filled = Pages(256, seed=3)
    Report().step("filled", filled, range(256), check=False, write=True)
    return filled


def test_every_page_is_different_and_half_of_it_compressible() -> None:
    pages = Pages(512, seed=1)
    contents = [pages.expected(page) for page in range(512)]
    assert {len(content) for content in contents} == {PAGE}
    assert len(set(contents)) == 512
    compressed = sum(len(lz4.block.compress(content)) for content in contents)
    assert 0.4 < compressed / (512 * PAGE) < 0.6


def test_right_pages_are_no_fault(pages: Pages) -> None:
    report = Report()
    report.step("read", pages, range(256), check=True, write=True)
    report.step("again", pages, range(256), check=True, write=False)
    assert report.wrong == 0


@pytest.mark.parametrize("instead", [0, 7, None], ids=["its neighbour", "another", "an older one"])
def test_a_wrong_page_is_named(
    pages: Pages, instead: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    older = pages.expected(1) if instead is None else pages.expected(instead)
    pages.write(1)
    pages._memory[PAGE : 2 * PAGE] = older
    report = Report()
    report.step("read", pages, range(256), check=True, write=False)
    assert report.wrong == 1
    assert "page 1, version 2" in capsys.readouterr().err


def test_one_wrong_bit_is_a_wrong_page(pages: Pages) -> None:
    pages._memory[5 * PAGE + 4000] ^= 1
    assert [page for page in range(256) if pages.wrong(page)] == [5]


@pytest.mark.swap
def test_a_limit_holds_and_leaves_nothing_behind() -> None:
    program = [sys.executable, memory_pressure.__file__, "--mib", "48"]
    with MemoryLimit(32 * MIB) as limit:
        group = limit._group
        most = 0
        with subprocess.Popen(limit.command(program), stdout=subprocess.DEVNULL) as inside:
            while inside.poll() is None:
                most = max(most, limit.usage)
        # The kernel lets some allocations pass that must not wait.
        assert 16 * MIB < most < limit.size + MIB
        assert group.exists()
    # What does not fit goes to the machine's swap; where there is none, the program is killed.
    assert inside.returncode in (0, -signal.SIGKILL)
    assert not group.exists()


@pytest.mark.swap
def test_what_still_runs_inside_ends_with_the_limit() -> None:
    with MemoryLimit(32 * MIB) as limit:
        sleeper = subprocess.Popen(limit.command(["sleep", "60"]))
        while not limit.usage and sleeper.poll() is None:
            pass
    assert sleeper.wait() == -signal.SIGKILL
