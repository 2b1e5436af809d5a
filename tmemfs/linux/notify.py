"""Tells systemd what a service of Type=notify is doing (sd_notify(3))."""

import contextlib
import os
import socket


def notify(*lines: str) -> bool:
    """Send *lines* such as ``READY=1`` to who started this process; say whether it wants to know.

    Does nothing where nobody does ($NOTIFY_SOCKET), and never fails: a service whose manager does
    not listen serves all the same.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender,
    ):
        sender.sendto("\n".join(lines).encode(), address)
        return True
    return False
