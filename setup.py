"""The one thing that setup.cfg has no words for: the extensions."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        # Where one cannot be built, for lack of a compiler or of headers (libfuse's, lz4's),
        # tmemfs is installed without it: it mounts without discard, or reads slower.
        Extension("tmemfs.fuse._session", ["tmemfs/fuse/_session.c"], optional=True),
        Extension(
            "tmemfs.pages._reader", ["tmemfs/pages/_reader.c"], libraries=["lz4"], optional=True
        ),
    ]
)
