"""An open directory, as far as its listing has come."""

from __future__ import annotations

from tmemfs.volumes.nodes import Node


class Directory:
    """An open directory: its names as they were when reading it began, so that offsets hold."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.names: list[bytes] = []
        self.untold: set[Node] = set()
        """what did not fit into the answer; if nobody reads on, the kernel never knows it"""
