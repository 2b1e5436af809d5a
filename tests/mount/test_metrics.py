"""The metrics of a real mount, judged by Prometheus' own tool, and what is written about them."""

import json
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mounting import Mounted, mounted

import tmemfs

pytestmark = pytest.mark.root

REPOSITORY = Path(tmemfs.__file__).parents[1]
GRAFANA = REPOSITORY / "examples" / "grafana"
PROMTOOL = shutil.which("promtool") or shutil.which("promtool", path=Path(sys.executable).parent)

needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="no promtool")


@pytest.fixture(scope="module")
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    """A mount that has all there is: a cache, and a swap volume that overflows."""
    place = tmp_path_factory.mktemp("metrics")
    source = place / 'a source, \\ and "more"'
    source.mkdir()
    (source / "file").write_bytes(b"some bytes" * 10_000)
    overflow = ("--swap", "swap0=1M", "--overflow", f"swap0={place / 'overflow'}")
    with mounted(source, place / "mount", "--budget=16M", *overflow) as mount:
        assert (mount.path / "file").read_bytes() == (source / "file").read_bytes()
        yield mount


@pytest.fixture
def text(mount: Mounted) -> str:
    return (mount.control / "metrics").read_text()


def exported(text: str) -> set[tuple[str, str, str]]:
    """Name, type and meaning of every metric in a text."""
    helps = dict(re.findall(r"^# HELP (\S+) (.*)$", text, re.MULTILINE))
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    samples = set(re.findall(r"^(\w+)[{ ]", text, re.MULTILINE))
    assert helps.keys() == types.keys() == samples
    return {(name, types[name], helps[name]) for name in samples}


def promtool(*argv: object, given: str = "") -> None:
    """Run promtool, which must find nothing to say."""
    done = subprocess.run(
        [str(PROMTOOL), *map(str, argv)], input=given, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done


@needs_promtool
def test_promtool_finds_nothing_to_improve(text: str) -> None:
    promtool("check", "metrics", given=text)


def test_the_mount_names_itself(mount: Mounted, text: str) -> None:
    [labels] = re.findall(r"^tmemfs_mount_info\{(.*)\} 1$", text, re.MULTILINE)
    assert r'/a source, \\ and \"more\""' in labels
    assert f'version="{tmemfs.__version__}"' in labels
    assert f'mountpoint="{mount.path}"' in labels


def test_every_number_of_the_status_is_a_metric(mount: Mounted, text: str) -> None:
    status = mount.status()
    parts = [status[part] for part in ("memory", "reclaim", "cache", "lane")]
    parts += status["pools"] + status["swaps"]
    numbers = sum(type(value) in (int, float) for part in parts for value in part.values())
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    # Pages in the overflow file are told of the pool and of the volume.
    assert len(samples) == numbers - 1 + len({"mount", "uptime", "failsafe"})


def test_the_manual_names_exactly_the_metrics_there_are(text: str) -> None:
    manual = (REPOSITORY / "docs" / "metrics.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*) \|$", manual, re.MULTILINE)
    assert len(rows) == len(set(rows))
    assert set(rows) == exported(text)


# --- what is asked of them -------------------------------------------------------------------


def questions() -> dict[str, str]:
    """Every PromQL expression of the manual and of the dashboard, by where it is."""
    manual = (REPOSITORY / "docs" / "metrics.md").read_text()
    blocks = re.findall(r"^```\n(.*?)^```$", manual, re.MULTILINE | re.DOTALL)
    found = {f"manual{n}": line for n, line in enumerate("".join(blocks).splitlines())}
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            found[f"{panel['title']}{target['refId']}"] = target["expr"]
    return found


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GRAFANA / "tmemfs.json").read_text())
    return found


def test_the_questions_are_about_metrics_that_there_are(text: str) -> None:
    asked = {name for words in questions().values() for name in re.findall(r"tmemfs_\w+", words)}
    assert len(asked) > 15
    assert asked <= {name for name, _, _ in exported(text)}


def test_the_dashboard_shows_what_it_is_for() -> None:
    panels = dashboard()["panels"]
    titles = {panel["title"] for panel in panels}
    assert titles >= {"Hit rate", "Memory by kind", "Reclaim", "Backing reads and writes"}
    assert titles >= {"Overflow", "Swap"}
    places = [tuple(panel["gridPos"][key] for key in "xy") for panel in panels]
    assert len(set(places)) == len(places), "one over another"


@needs_promtool
def test_the_questions_can_be_asked(tmp_path: Path) -> None:
    rules = [
        {"record": f"q{n}", "expr": words.replace("$__rate_interval", "5m")}
        for n, words in enumerate(questions().values())
    ]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "questions", "rules": rules}]}))
    promtool("check", "rules", file)
    promtool("check", "config", GRAFANA / "prometheus.yml")


@needs_promtool
def test_the_exporter_serves_them(mount: Mounted) -> None:
    server = subprocess.Popen(
        [sys.executable, GRAFANA / "exporter.py", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(REPOSITORY)},
    )
    try:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        with urllib.request.urlopen(address.replace("MOUNTPOINT", str(mount.path))) as answer:
            promtool("check", "metrics", given=answer.read().decode())
        with pytest.raises(urllib.error.HTTPError, match="no such mount") as refusal:
            urllib.request.urlopen(address.replace("MOUNTPOINT", "/etc"))
        refusal.value.close()
    finally:
        server.terminate()
        server.communicate()
