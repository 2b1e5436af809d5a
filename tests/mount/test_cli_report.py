"""`tmemfs report` and `--log`, on a real mount."""

import os
import re
import signal
from pathlib import Path

import pytest
from command import COMMAND, run
from mounting import mounted, wait_for

pytestmark = pytest.mark.root


@pytest.fixture
def source(tmp_path: Path) -> Path:
    made = tmp_path / "a secret place"
    made.mkdir()
    (made / "a secret name").write_text("content")
    return made


def test_the_report_has_everything_but_names(source: Path, tmp_path: Path) -> None:
    log = tmp_path / "the log"
    with mounted(
        source, tmp_path / "mount", "--budget=16M", "--swap=s=1M", f"--log={log}"
    ) as mount:
        process = mount.status()["pid"]
        os.kill(process, signal.SIGUSR1)
        wait_for("it is logged", lambda: "thread: MainThread" in log.read_text())
        done = run(*COMMAND, "report", mount.path, "-o", tmp_path / "report")
        assert done.code == 0
        assert done.out.startswith(f"{tmp_path}/report: written; ")
        report = (tmp_path / "report").read_text()
        assert (tmp_path / "report").stat().st_mode & 0o777 == 0o600
        for wanted in ("# versions", "# check", "# mount 1", "## log", "pyfuse3 ", "mem_limit"):
            assert wanted in report
        assert "_end_on_signal" in report
        assert "secret" not in report
        assert str(tmp_path) not in report
        again = run(*COMMAND, "report", mount.path, "-o", tmp_path / "report", code=None)
        assert again.code != 0  # what is there is not written over
        named = run(*COMMAND, "report", mount.path, "-o", "-", "--names")
        assert str(source) in named.out
        assert re.search(r"WARNING: task: ", named.out)
    log.unlink()


def test_a_log_that_is_moved_away_begins_anew(source: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with mounted(source, tmp_path / "mount", "--budget=16M", f"--log={log}") as mount:
        process = mount.status()["pid"]
        for _ in range(2):
            os.kill(process, signal.SIGUSR1)
            wait_for("it is logged", lambda: log.exists() and "MainThread" in log.read_text())
            log.rename(tmp_path / "log.1")


@pytest.mark.parametrize(
    ("where", "said"),
    [("/nowhere/log", "No such file"), ("stderr", "a daemon in the background has no stderr")],
)
def test_where_it_cannot_log(source: Path, tmp_path: Path, where: str, said: str) -> None:
    (tmp_path / "m").mkdir()
    words = ("mount", source, tmp_path / "m", "--budget=16M", "--log", where)
    done = run(*COMMAND, *words, code=None)
    assert done.code != 0
    assert said in done.err
    assert done.err.count("\n") == 1
    assert not os.path.ismount(tmp_path / "m")
