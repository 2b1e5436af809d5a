"""Where page bytes live: an arena cut into segments, logs of segments, and the page codec.

Nothing here knows of files, of FUSE or of trio; nothing here does I/O.
"""

from tmemfs.pages.arena import Arena
from tmemfs.pages.log import Segment, SegmentLog

__all__ = ["Arena", "Segment", "SegmentLog"]
