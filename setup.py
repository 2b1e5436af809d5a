"""What setup.cfg has no words for: the extensions, and what is installed beside the package."""

import glob
import os
import runpy
from pathlib import Path

from setuptools import Extension, setup

HERE = Path(__file__).parent


def shared() -> list[tuple[str, list[str]]]:
    """Documents and examples; manual pages and completions, where shtab is there to make them."""
    examples = [name for name in glob.glob("examples/**", recursive=True) if os.path.isfile(name)]
    # As in a clone, so that the links between them lead somewhere.
    places = {
        "share/doc/tmemfs": ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"],
        "share/doc/tmemfs/docs": glob.glob("docs/*.md"),
    }
    for name in examples:
        if "__pycache__" not in name:
            places.setdefault(f"share/doc/tmemfs/{os.path.dirname(name)}", []).append(name)
    try:
        write = runpy.run_path(str(HERE / "scripts" / "share.py"))["main"]
    except ImportError:
        return sorted(places.items())
    write(["build/share"])
    for path in Path("build/share").rglob("*"):
        if path.is_file():
            place = str(path.parent.relative_to("build"))
            places.setdefault(place, []).append(str(path))
    return sorted(places.items())


os.chdir(HERE)
setup(
    data_files=shared(),
    ext_modules=[
        # Where one cannot be built, for lack of a compiler or of headers (libfuse's, lz4's),
        # tmemfs is installed without it: it mounts without discard, or reads slower.
        Extension("tmemfs.fuse._session", ["tmemfs/fuse/_session.c"], optional=True),
        Extension(
            "tmemfs.pages._reader",
            ["tmemfs/pages/_reader.c"],
            depends=["tmemfs/pages/codec.h"],
            libraries=["lz4"],
            optional=True,
        ),
        Extension(
            "tmemfs.native._native",
            sorted(glob.glob("tmemfs/native/*.c")),
            depends=[*glob.glob("tmemfs/native/*.h"), "tmemfs/pages/codec.h"],
            libraries=["lz4"],
            optional=True,
        ),
    ],
)
