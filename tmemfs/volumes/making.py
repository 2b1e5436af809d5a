"""Making names in a directory so that they belong to who asked, whoever we are.

Descriptors and bytes only, so that a thread can do it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from typing import NamedTuple

_SET_ID = stat.S_ISUID | stat.S_ISGID


class Caller(NamedTuple):
    """Who asks: what is made belongs to them."""

    uid: int
    gid: int


def make(
    function: Callable[..., None],
    directory: int,
    name: bytes,
    mode: int,
    caller: Caller,
    *args: int,
) -> None:
    """Make *name* in *directory* by *function* of `os`, for *caller*. Blocks."""
    function(name, mode, *args, dir_fd=directory)
    undo = os.rmdir if function is os.mkdir else os.unlink
    _hand_over(directory, name, mode, caller, undo)


def make_link(target: bytes, directory: int, name: bytes, caller: Caller) -> None:
    """Make a symbolic link to *target* for *caller*. Blocks."""
    os.symlink(target, name, dir_fd=directory)
    _hand_over(directory, name, 0, caller, os.unlink)


def make_file(directory: int, name: bytes, mode: int, flags: int, caller: Caller) -> int:
    """Make a file for *caller* and open it; return the descriptor. Blocks."""
    flags |= os.O_NOFOLLOW
    try:
        fd = os.open(name, flags | os.O_CREAT | os.O_EXCL, mode, dir_fd=directory)
    except FileExistsError:
        if flags & os.O_EXCL:
            raise
        # It is not for us to open it, because nobody has asked yet whether the caller may. The
        # kernel, which had not seen it, looks again and does ask.
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), name) from None
    try:
        _hand_over(directory, name, mode, caller, os.unlink)
    except OSError:
        os.close(fd)
        raise
    return fd


def _hand_over(
    directory: int, name: bytes, mode: int, caller: Caller, undo: Callable[..., None]
) -> None:
    """Give what was just made to *caller*, as if they had made it in the directory itself.

    Where that fails (a quota, say), *undo* removes it again.
    """
    ours = os.geteuid()
    if (caller.uid, caller.gid) == (ours, os.getegid()):
        return
    # In a set-group-ID directory the group is the directory's already.
    inherits = os.fstat(directory).st_mode & stat.S_ISGID
    gid = -1 if inherits else caller.gid
    try:
        if ours:
            # Only root can give files away; anybody may choose among their own groups.
            with contextlib.suppress(PermissionError):
                os.chown(name, -1, gid, dir_fd=directory, follow_symlinks=False)
        else:
            os.chown(name, caller.uid, gid, dir_fd=directory, follow_symlinks=False)
        if mode & _SET_ID and stat.S_IFMT(mode) in (0, stat.S_IFREG):
            # Changing the owner of a file has cleared these bits.
            os.chmod(name, stat.S_IMODE(mode), dir_fd=directory)
    except OSError:
        undo(name, dir_fd=directory)
        raise
