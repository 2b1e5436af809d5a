"""A directory through the cache: its names, its files' attributes and pages, and who has them open.

`volume.CacheVolume` is what the floor above talks to.
"""
