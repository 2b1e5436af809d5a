"""What is installed beside the package, and that a source distribution lacks nothing."""

import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tmemfs.cli.main import COMMANDS
from tmemfs.config import OWN_KEYS, OWN_SWITCHES, offered_options, parse_mount

ROOT = Path(__file__).parents[2]
SHARE = runpy.run_path(str(ROOT / "scripts" / "share.py"))


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that is made of the parsers."""
    made = tmp_path_factory.mktemp("share")
    SHARE["main"]([str(made)])
    return made


def tracked() -> list[str]:
    """The files of this clone; a source distribution is none, and has them all by what it is."""
    if not (ROOT / ".git").exists():
        pytest.skip("no clone")
    found = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True)
    return found.splitlines()


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name}")
    return found


def test_each_command_has_a_page(share: Path) -> None:
    pages = {page.name for page in (share / "man/man8").iterdir()}
    assert pages == {"tmemfs.8", *(f"tmemfs-{command}.8" for command in COMMANDS)}
    text = (share / "man/man8/tmemfs-swapon.8").read_text()
    for wanted in ("\\-\\-budget", "EXIT CODES", "SEE ALSO"):
        assert wanted in text
    assert "writeback" in (share / "man/man5/tmemfs-options.5").read_text()
    # Each column is a paragraph, though their names stand to the right in the help.
    assert "\n.TP\n.B POOL\n" in (share / "man/man8/tmemfs-status.8").read_text()
    assert "mem_used_total" in (share / "man/man5/tmemfs-figures.5").read_text()


def test_pages_are_written_as_man_wants_them(share: Path) -> None:
    man = program("man")
    for page in sorted((share / "man").rglob("*.[58]")):
        done = subprocess.run(
            [man, "--warnings", "-E", "UTF-8", "-l", page],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "MANWIDTH": "80", "MAN_KEEP_FORMATTING": ""},
        )
        assert not done.stderr, page.name
        assert len(done.stdout) > 300, page.name
        assert max(map(len, done.stdout.splitlines())) <= 80, page.name


@pytest.mark.parametrize(
    ("shell", "file"),
    [
        ("bash", "bash-completion/completions/tmemfs"),
        ("zsh", "zsh/site-functions/_tmemfs"),
        ("fish", "fish/vendor_completions.d/tmemfs.fish"),
    ],
)
def test_a_shell_reads_its_completions(share: Path, shell: str, file: str) -> None:
    subprocess.run([program(shell), "-n", share / file], check=True)


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("tmemfs st", {"status"}),
        ("tmemfs sw", {"swapon", "swapoff"}),
        ("tmemfs mount --bu", {"--budget"}),
        ("tmemfs mount -o wri", {"writeback"}),
        ("tmemfs mount -o ro,budg", {"ro,budget="}),
        ("tmemfs mount -o ro,cache=al", {"always"}),
        ("tmemfs mount -o native=", {"on", "off"}),
        ("tmemfs mount -o cache=open,log=", {"stderr", "syslog"}),
    ],
)
def test_bash_completes(share: Path, line: str, offered: set[str]) -> None:
    """What it adds to the last word, as bash has it: an equals sign is a word of its own."""
    assert completed_by_bash(share, line, re.findall(r"=|[^\s=]+", line)) == offered


def test_bash_completes_where_an_equals_sign_ends_no_word(share: Path) -> None:
    """As some have it, by COMP_WORDBREAKS."""
    line = "tmemfs mount /source -o ro,cache=al"
    assert completed_by_bash(share, line, line.split()) == {"ro,cache=always"}


def completed_by_bash(share: Path, line: str, words: list[str]) -> set[str]:
    script = (
        f"source {share}/bash-completion/completions/tmemfs; compopt() {{ :; }}; "
        f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; "
        f"COMP_LINE='{line}'; COMP_POINT={len(line)}; "
        '"$(complete -p tmemfs | sed "s/.*-F \\([^ ]*\\).*/\\1/")"; echo "${COMPREPLY[@]}"'
    )
    found = subprocess.check_output([program("bash"), "-c", script], text=True)
    return set(found.split())


def test_fish_completes(share: Path) -> None:
    def completed(line: str) -> list[str]:
        file = share / "fish/vendor_completions.d/tmemfs.fish"
        script = f"source {file}; complete -C '{line}'"
        found = subprocess.check_output([program("fish"), "-c", script], text=True)
        return [row.partition("\t")[0] for row in found.splitlines()]

    assert set(completed("tmemfs sw")) == {"swapon", "swapoff"}
    assert completed("tmemfs mount -o ro,writeb") == ["ro,writeback"]
    assert completed("tmemfs mount --budget ") == []  # it is no file


def test_zsh_offers_mount_options(share: Path) -> None:
    """Its completion is for its line editor alone; the function can be asked for its words."""
    file = share / "zsh/site-functions/_tmemfs"
    script = f"autoload -Uz compinit; compinit -D; source {file} 2>/dev/null; " + (
        '_values() { print -l -- "$@" }; _tmemfs_options'
    )
    found = subprocess.check_output([program("zsh"), "-f", "-c", script], text=True).splitlines()
    assert {"writeback", "cache:cache:(always none open)", "budget:budget:()"} <= set(found)


def test_what_is_offered_for_a_mount_is_accepted() -> None:
    for option in offered_options():
        swap = ["swap=a=1M"] if option == "swap_only" else []
        if not option.endswith("="):
            parse_mount("/source", "/mount", [option, *swap], as_root=True, foreground=True)
    assert set(OWN_KEYS) | OWN_SWITCHES <= {
        option.partition("=")[0] for option in offered_options()
    }


def test_a_source_distribution_has_all_that_a_clone_has(tmp_path: Path) -> None:
    """And a wheel made of it has pages, completions, documents and examples."""
    pytest.importorskip("build")
    files = tracked()
    copy = tmp_path / "copy"
    for name in files:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name)
    # The wheel is made of the source distribution, as whoever has only that would.
    command = [sys.executable, "-m", "build", "--outdir", tmp_path / "dist", copy]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    [sdist] = (tmp_path / "dist").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert set(files) - inside <= {".gitignore"}
    [wheel] = (tmp_path / "dist").glob("*.whl")
    names = " ".join(zipfile.ZipFile(wheel).namelist())
    for wanted in (
        "share/man/man8/tmemfs-mount.8",
        "share/bash-completion/completions/tmemfs",
        "share/doc/tmemfs/docs/limits.md",
        "share/doc/tmemfs/examples/demo.py",
    ):
        assert wanted in names


def test_the_container_recipe_names_what_there_is() -> None:
    """There need not be a container engine here; packages and files can be looked for."""
    text = re.sub(r"\\\n", " ", (ROOT / "Containerfile").read_text())
    for line in text.splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            for name in line.split()[1:-1]:
                assert (ROOT / name).exists(), name
    cache = program("apt-cache")
    for packages in re.findall(r"--no-install-recommends ([^&\n]*)", text):
        for package in packages.split():
            shown = subprocess.run([cache, "show", package], capture_output=True, check=False)
            assert shown.returncode == 0, package
    [entry] = re.findall(r'^ENTRYPOINT \["tmemfs", "(\w+)"', text, re.MULTILINE)
    assert entry in COMMANDS


@pytest.mark.thorough
def test_the_debian_package(tmp_path: Path) -> None:
    program("apt-get")
    subprocess.run(["make", "deb"], cwd=ROOT, check=True, capture_output=True)
    [package] = (ROOT / "dist").glob("tmemfs_*.deb")
    subprocess.run(["dpkg-deb", "-x", package, tmp_path], check=True)
    assert (tmp_path / "usr/lib/systemd/system/tmemfs-swap@.service").exists()
    said = subprocess.check_output(
        ["/usr/bin/python3", "-m", "tmemfs", "--version"],
        env={"PYTHONPATH": str(tmp_path / "usr/lib/python3/dist-packages")},
        text=True,
    )
    assert said.startswith("tmemfs ")
