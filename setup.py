"""The one thing that setup.cfg has no words for: the extension."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        # Where it cannot be built, for lack of a compiler or of libfuse's headers, tmemfs is
        # installed without it and mounts without discard.
        Extension("tmemfs.fuse._fallocate", ["tmemfs/fuse/_fallocate.c"], optional=True)
    ]
)
