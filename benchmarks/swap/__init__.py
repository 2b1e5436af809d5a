"""Swap on a tmemfs volume beside every other way to have it, all in one run.

`program.c` needs four times the memory that it has and checks every page; it runs on each of
`peers.py` in turn, in rounds. `capacity.py` tells how much each of them holds in how much memory.
"""
