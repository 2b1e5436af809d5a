"""fio on one file of a mount, as seconds for a read, from its JSON."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Job:
    """One way of reading, one read at a time in each job (psync): with one job, a read's time is
    what the way there and back costs, and the other processor is the server's."""

    name: str
    pattern: str
    block_size: int
    direct: bool = True
    cached: bool = False
    """Whether buffered reads are to be of what the kernel has kept."""
    jobs: int = 1
    """Readers at the same time; what is told then is the time of all reads, by their number."""
    median: bool = False
    """Whether the median of the reads is told, not the mean."""


RANDOM_4K = Job("4 KiB random", "randread", 4 << 10)
SEQUENTIAL_1M = Job("1 MiB sequential", "read", 1 << 20)
RANDOM_4K_MEDIAN = Job("4 KiB random, median", "randread", 4 << 10, median=True)
RANDOM_4K_JOBS = Job("4 KiB random, 4 jobs", "randread", 4 << 10, jobs=4)
SEQUENTIAL_1M_JOBS = Job("1 MiB sequential, 4 jobs", "read", 1 << 20, jobs=4)
BUFFERED_4K = Job("4 KiB random, kernel cache", "randread", 4 << 10, direct=False, cached=True)
BUFFERED_1M = Job("1 MiB sequential, read ahead", "read", 1 << 20, direct=False)


def seconds_a_read(job: Job, file: Path, *, runtime: float = 0, reads: int = 0) -> float:
    """Read *file* for *runtime* seconds, or *reads* times, or else once through."""
    arguments = [
        "fio",
        "--output-format=json",
        "--readonly",
        "--ioengine=psync",
        "--norandommap",
        "--randrepeat=0",
        f"--name={job.name}",
        f"--filename={file}",
        f"--rw={job.pattern}",
        f"--bs={job.block_size}",
        f"--direct={int(job.direct)}",
        f"--invalidate={int(not job.cached)}",
        f"--numjobs={job.jobs}",
        "--group_reporting",
        "--thread",
    ]
    if runtime:
        arguments += ["--time_based", f"--runtime={runtime * 1000:.0f}ms"]
    elif reads:
        arguments += [f"--number_ios={reads}"]
    done = subprocess.run(
        arguments, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode:
        raise OSError(f"fio failed on {file}: {done.stderr.strip() or done.stdout.strip()}")
    # Notes to people may come before the JSON.
    read: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]["read"]
    if job.median:
        return float(read["clat_ns"]["percentile"]["50.000000"]) / 1e9
    return float(read["runtime"]) / 1000 / int(read["total_ios"])
