"""tmemfs: compressed, budgeted memory for slow files and for swap, as a FUSE filesystem.

Where a read goes, and the rooms it passes (arrows only ever go down)::

    read(2) -> fuse.Operations.read -> volumes.CacheVolume.read -> tmem.Pool.get_run
                                              |                      -> pages.SegmentLog.read -> lz4
                                              | miss
                                              +-> backing file -> tmem.Pool.put_many

``cli`` is what people type, ``daemon`` is the process that serves a mount, ``fuse`` is what the
kernel asks, ``volumes`` is what a file means, ``tmem`` is put/get/flush under one budget, and
``pages`` is where the bytes live.
"""

__version__ = "0.1.0"
