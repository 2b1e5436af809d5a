"""Swap volumes: files of fixed size whose pages are in a persistent pool, or in an overflow file.

`volumes.SwapVolumes` has all those of a mount.
"""
