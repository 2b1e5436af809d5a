"""A small Debian for the guest: a kernel, an initial RAM disk and the image of a root filesystem.

It is made once, of the packages of the release that this machine runs, in the directory that the
environment variable TMEMFS_GUEST names (by default a cache directory); about three minutes and
half a gigabyte. Its Python is the distribution's, and takes what was built for ours where both are
of the same version.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

QEMU = "qemu-system-x86_64"
TOOLS = {QEMU: "qemu-system-x86", "debootstrap": "debootstrap", "mkfs.ext4": "e2fsprogs"}
PACKAGES = "linux-image-cloud-amd64 initramfs-tools python3 libfuse3-3 kmod mount e2fsprogs procps"
# All that it takes to find the root; the rest of the kernel's modules is on it.
MODULES = "virtio_pci\nvirtio_blk\next4\n"
INIT = Path(__file__).with_name("init.sh")
ROOM = 64 << 20  # bytes that are left on the root filesystem, for what is compiled and logged


@dataclass(frozen=True)
class Image:
    """The files that qemu boots. The root is never written to: a guest gets a copy that is lost."""

    kernel: Path
    initrd: Path
    root: Path


def lacking() -> str | None:
    """Why there can be no guest here; None where there can."""
    if os.geteuid() != 0:
        return "needs root, for debootstrap"
    missing = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
    return f"needs {' '.join(missing)} (apt-get install)" if missing else None


def image() -> Image:
    """The image, which is made where it is not there yet. Raises OSError where it cannot be."""
    place = Path(os.environ.get("TMEMFS_GUEST") or Path.home() / ".cache" / "tmemfs-guest")
    found = Image(place / "vmlinuz", place / "initrd", place / "root.img")
    if not found.root.exists():
        place.mkdir(parents=True, exist_ok=True)
        _make(found)
    return found


def _make(wanted: Image) -> None:
    tree = wanted.root.with_suffix(".tree")
    shutil.rmtree(tree, ignore_errors=True)  # of a run that broke off
    uri, release = _source()
    packages = ",".join(PACKAGES.split())
    _run("debootstrap", "--variant=minbase", f"--include={packages}", release, str(tree), uri)
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if not (tree / "usr/bin" / python).exists():
        raise OSError(f"{release} has no {python}: run this with the distribution's own Python")
    (tree / "etc/initramfs-tools/conf.d/guest").write_text("MODULES=list\n")
    (tree / "etc/initramfs-tools/modules").write_text(MODULES)
    _run("chroot", str(tree), "update-initramfs", "-u")
    shutil.copy(INIT, tree / "sbin/guest-init")
    (tree / "job").mkdir()
    shutil.copy(tree / "vmlinuz", wanted.kernel)
    shutil.copy(tree / "initrd.img", wanted.initrd)
    for unused in ("boot", "usr/share/doc", "usr/share/locale", "var/cache/apt", "var/lib/apt"):
        shutil.rmtree(tree / unused)
    # In this order: where there is a root image, all is there.
    unfinished = wanted.root.with_suffix(".new")
    with unfinished.open("wb") as file:
        file.truncate(_size(tree) + ROOM)
    _run("mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-d", str(tree), str(unfinished))
    unfinished.rename(wanted.root)
    shutil.rmtree(tree)


def _source() -> tuple[str, str]:
    """Where apt gets this machine's Debian from, and the name of its release."""
    asked = _run("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Origin: Debian")
    if not asked:
        raise OSError("apt knows no archive of Debian: the guest is made of its packages")
    uri, release = asked.splitlines()[0].split()
    return uri, release


def _size(tree: Path) -> int:
    """Bytes that a filesystem needs for what is in *tree*, with its own tables."""
    return int(_run("du", "-s", "-B1", str(tree)).split()[0]) * 11 // 10


def _run(*command: str) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise OSError(f"{command[0]} ended with {done.returncode}: {'; '.join(last)}")
    return done.stdout.strip()
