"""A slow directory through tmemfs, beside other filesystems on it and beside itself, in one run.

It is slow (`slow.py`) because it is far away (`far.py`: sshfs to this machine, with a delay on the
way, `examples/slow_sftp.py`), or because its disk is (`throttled.py`: a loop device with a limit).
`layers.py` are the ways to look at it, `work.py` is what is done with it, and each checks what it
read. `figures.py` has each work done through each layer in turn, cold and then warm.
"""
