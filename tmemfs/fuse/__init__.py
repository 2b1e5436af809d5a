"""What the kernel asks: handlers of a few lines over volumes. The only room that knows pyfuse3."""

from tmemfs.fuse import session  # first: it works only if it is loaded before pyfuse3

# isort: split
import pyfuse3

__all__ = ["pyfuse3", "session"]
