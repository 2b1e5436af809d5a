"""What a daemon does so that it never waits for memory that only it can free: seen in /proc."""

import os
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from as_root import loop_on
from loop_swap import run as run_command
from mounting import Mounted, mounted
from page_data import run

pytestmark = pytest.mark.root

MIB = 1 << 20
IPC_LOCK, SYS_NICE, SYS_RESOURCE = 14, 23, 24
SMALL_LIMIT = 8 * MIB

# Run by the serving process before anything else: it becomes itself again, with less permitted.
WITHOUT_PERMISSION = f"""
import os, sys
os.execvp("prlimit", [
    "prlimit", "--memlock={SMALL_LIMIT}:{SMALL_LIMIT}", "--rtprio=0:0",
    "setpriv", "--bounding-set=-ipc_lock,-sys_nice,-sys_resource",
    "--inh-caps=-ipc_lock,-sys_nice,-sys_resource",
    sys.executable, "-m", "tmemfs", *sys.argv[1:],
])
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    made = tmp_path / "source"
    made.mkdir()
    return made


def permitted(capability: int) -> bool:
    return bool(int(field("self", "CapEff"), 16) >> capability & 1)


def field(pid: int | str, name: str, file: str = "status") -> str:
    for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return line.split()[1]
    raise KeyError(name)


def steps(mount: Mounted) -> dict[str, bool]:
    """Which steps the status says are in place; each has a line, what to grant where it is not."""
    told = {step["step"]: step for step in mount.status()["safety"]}
    for step in told.values():
        assert step["done"] or "grant" in step["text"], step
        assert "\n" not in step["text"]
        said = f"INFO: swap is less safe than it could be: {step['text']}\n"
        assert step["done"] != (said in mount.log())
    return {name: step["done"] for name, step in told.items()}


def policies(mount: Mounted) -> set[int]:
    """How the threads of the daemon are scheduled."""
    threads = os.listdir(f"/proc/{mount.process.pid}/task")
    return {os.sched_getscheduler(int(thread)) for thread in threads}


def page_faults(mount: Mounted) -> int:
    """How often the daemon has touched memory that was not there."""
    fields = Path(f"/proc/{mount.process.pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[7]) + int(fields[9])


def check_volume(mount: Mounted, *, kept: bool) -> None:
    """Fill a swap volume and empty it; the memory comes and goes, or is *kept* all the time."""
    before = mount.resident()
    assert kept == (before > 80 * MIB)
    with open(mount.control / "swap" / "s", "r+b", buffering=0) as file:
        for at in range(0, 32 * MIB, MIB):
            assert os.pwrite(file.fileno(), run(at, 256), at) == MIB
        assert (mount.resident() - before > 24 * MIB) != kept
        for at in range(0, 32 * MIB, MIB):
            assert os.pread(file.fileno(), MIB, at) == run(at, 256)
        for at in range(0, 32 * MIB, MIB):
            os.pwrite(file.fileno(), bytes(MIB), at)
    # What comes is given back although it is locked.
    assert mount.resident() - before < 8 * MIB


def test_what_is_permitted_is_in_place(source: Path, tmp_path: Path) -> None:
    with mounted(source, tmp_path / "m", "--budget=64M", "--swap=s=64M") as mount:
        done = steps(mount)
        pid = mount.process.pid
        assert set(done) == {*("lock_memory", "reserve", "oom_score_adj", "io_flusher", "requests")}
        assert done["reserve"]
        assert done["requests"] == mount.status()["discard"]
        unlimited = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1] == resource.RLIM_INFINITY
        assert done["lock_memory"] == (permitted(IPC_LOCK) or unlimited)
        if done["lock_memory"]:
            # All that it has, apart from pages that the kernel lends to everybody.
            locked = int(field(pid, "Locked", "smaps_rollup"))
            assert locked > int(field(pid, "Pss", "smaps_rollup")) * 9 // 10
            assert int(field(pid, "VmSwap")) == 0
        assert policies(mount) == {os.SCHED_OTHER}
        spared = Path(f"/proc/{pid}/oom_score_adj").read_text() == "-1000\n"
        assert done["oom_score_adj"] == spared
        assert done["oom_score_adj"] or not permitted(SYS_RESOURCE)
        assert done["io_flusher"] == permitted(SYS_RESOURCE)
        check_volume(mount, kept=True)


def test_real_time_is_for_those_who_ask(source: Path, tmp_path: Path) -> None:
    options = ("--budget=64M", "--swap=s=64M", "-orealtime")
    with mounted(source, tmp_path / "m", *options) as mount:
        assert steps(mount)["real_time"] == (policies(mount) == {os.SCHED_RR})
        assert steps(mount)["real_time"] or not permitted(SYS_NICE)


def test_memory_that_is_not_reserved_comes_and_goes(source: Path, tmp_path: Path) -> None:
    options = ("--budget=64M", "--swap=s=64M", "-oreserve=4M")
    with mounted(source, tmp_path / "m", *options) as mount:
        assert not steps(mount)["reserve"]
        check_volume(mount, kept=False)


@pytest.mark.parametrize("overflow", [False, True])
def test_no_page_takes_new_memory(source: Path, tmp_path: Path, overflow: bool) -> None:
    """What serving swap takes is there beforehand, however many ask at once."""
    options = ["--budget=160M", "--swap=s=128M"]
    if overflow:
        options = ["--budget=16M", "--swap=s=128M", f"-ooverflow=s={tmp_path / 'overflow'}"]
    contents = [run(number, 256) for number in range(16)]
    with (
        mounted(source, tmp_path / "m", *options) as mount,
        open(mount.control / "swap" / "s", "r+b", buffering=0) as file,
        ThreadPoolExecutor(16) as threads,
    ):
        fd = file.fileno()
        # What the interpreter does for the first time.
        os.pwrite(fd, contents[0], 0)
        assert os.pread(fd, MIB, 0) == contents[0]
        before = page_faults(mount)
        places = range(128)
        list(threads.map(lambda n: os.pwrite(fd, contents[n % 16], n * MIB), places))
        for n, content in enumerate(threads.map(lambda n: os.pread(fd, MIB, n * MIB), places)):
            assert content == contents[n % 16]
        list(threads.map(lambda n: os.pwrite(fd, contents[n % 16][:4096], n * MIB), places))
        # Nothing that grows with the 65,000 pages.
        assert page_faults(mount) - before < 100


def stack(mount: Mounted) -> str:
    """The addresses of the stack of the thread that serves; it grows as it is used."""
    maps = Path(f"/proc/{mount.process.pid}/maps").read_text().splitlines()
    return next(line.split()[0] for line in maps if line.endswith("[stack]"))


def test_no_page_takes_a_new_piece_of_stack(source: Path, tmp_path: Path) -> None:
    """Not even the first one to be compressed, for which lz4 wants a quarter of a megabyte."""
    with mounted(source, tmp_path / "m", "--budget=16M", "--swap=s=8M", "-oswap_only") as mount:
        before = stack(mount)
        with open(mount.control / "swap" / "s", "r+b", buffering=0) as file:
            for at in range(0, 4 * MIB, MIB):
                os.pwrite(file.fileno(), run(at, 256), at)
            for at in range(0, 4 * MIB, MIB):
                assert os.pread(file.fileno(), MIB, at) == run(at, 256)
        assert mount.pool("s")["pages"] == 1024
        assert stack(mount) == before


# Run by the serving process: a disk that takes its time, for each write to it.
SLOW_OVERFLOW = """
import time
from tmemfs.swap.overflowfile import OverflowFile

before = OverflowFile._write

def slow(self, pages):
    time.sleep(0.02)
    return before(self, pages)

OverflowFile._write = slow
"""
# What docs/swap-safety.md says that a daemon takes beside its budget.
BESIDE_BUDGET, FOR_OVERFLOW = 80 * MIB, 24 * MIB
HANDFUL = 16


@pytest.mark.swap
@pytest.mark.parametrize("overflow", [False, True])
@pytest.mark.parametrize("bounds", ["", "-oswap_only"])
def test_a_loop_device_that_asks_all_that_it_may(
    source: Path, tmp_path: Path, overflow: bool, bounds: str
) -> None:
    """However much is under way at once, of any size, the memory for it is there beforehand.

    Raise what the kernel may ask of such a mount, and this fails: a machine out of memory stops.
    """
    budget = 32 * MIB if overflow else 80 * MIB
    options = [f"--budget={budget}", "--swap=s=64M", *filter(None, [bounds])]
    if overflow:
        options.append(f"--overflow=s={tmp_path / 'overflow'}")
    before = SLOW_OVERFLOW if overflow else ""
    with mounted(source, tmp_path / "m", *options, before=before) as mount:
        with loop_on(mount.control / "swap" / "s") as device:
            faults = page_faults(mount)
            for work, size in (
                *(("write", "1M"), ("randread", "4k"), ("randwrite", "4k")),
                *(("randrw", "128k"), ("randrw", "1M"), ("randwrite", "4k")),
            ):
                run_command(
                    *("fio", "--name=x", f"--filename={device}", "--direct=1", "--size=64M"),
                    *("--ioengine=libaio", "--iodepth=128", f"--rw={work}", f"--bs={size}"),
                    *("--buffer_compress_percentage=40", "--io_size=64M", "--randseed=1"),
                )
        assert page_faults(mount) - faults <= HANDFUL
        most = int(field(mount.process.pid, "VmHWM")) << 10
        assert most <= budget + BESIDE_BUDGET + (FOR_OVERFLOW if overflow else 0)
        assert mount.status()["failsafe"]["count"] == 0


def test_what_is_reserved_follows_the_budget(source: Path, tmp_path: Path) -> None:
    with mounted(source, tmp_path / "m", "--budget=64M", "--swap=s=64M") as mount:
        before = mount.resident()
        for change, budget in ((-32, "32M"), (64, "128M"), (0, "64M")):
            (mount.control / "budget").write_text(budget)
            assert abs(mount.resident() - before - change * MIB) < 4 * MIB


def test_nothing_is_permitted(source: Path, tmp_path: Path) -> None:
    """It serves all the same, and says what to grant."""
    options = ("--budget=64M", "--swap=s=64M", "-orealtime")
    with mounted(source, tmp_path / "m", *options, before=WITHOUT_PERMISSION) as mount:
        done = steps(mount)
        spared = Path("/proc/self/oom_score_adj").read_text() == "-1000\n"
        assert done == {
            "oom_score_adj": spared,
            "lock_memory": False,
            "reserve": True,
            "real_time": False,
            "io_flusher": False,
            "requests": mount.status()["discard"],
        }
        [line] = [s["text"] for s in mount.status()["safety"] if s["step"] == "lock_memory"]
        assert f"RLIMIT_MEMLOCK is {SMALL_LIMIT} bytes" in line
        assert "CAP_IPC_LOCK" in line
        assert "LimitMEMLOCK" in line
        # Not even a part: what would be locked at first would keep the rest from being had.
        assert int(field(mount.process.pid, "VmLck")) == 0
        assert policies(mount) == {os.SCHED_OTHER}
        check_volume(mount, kept=True)


def test_a_cache_alone_locks_nothing(source: Path, tmp_path: Path) -> None:
    with mounted(source, tmp_path / "m", "--budget=64M") as mount:
        assert steps(mount) == {}
        assert int(field(mount.process.pid, "VmLck")) == 0
        assert policies(mount) == {os.SCHED_OTHER}
        score = Path(f"/proc/{mount.process.pid}/oom_score_adj").read_text()
        assert score == Path("/proc/self/oom_score_adj").read_text()
