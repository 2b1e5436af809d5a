"""A slow directory through tmemfs, beside other filesystems on it and beside itself, in one run.

`slow.py` makes a directory slow: sshfs to this machine, with a delay on the way (`slow_sftp.py`).
`layers.py` are the ways to look at it, `work.py` is what is done with it, and each checks what it
read. `figures.py` has each work done through each layer in turn, cold and then warm.
"""
