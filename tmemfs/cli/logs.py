"""Where a serving process writes its log: a terminal in the foreground, else the system's log."""

from __future__ import annotations

import logging
import logging.handlers
import os

SYSTEM_LOG = "/dev/log"


def to_stderr(*, debug: bool) -> None:
    """Log to stderr, for a daemon in the foreground; systemd takes it to the journal."""
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.INFO,
        format="tmemfs: %(levelname)s: %(message)s",
        force=True,
    )


def to_system_log() -> None:
    """Log to the system's log where there is one, for a daemon in the background."""
    handler: logging.Handler = logging.NullHandler()
    if os.path.exists(SYSTEM_LOG):
        try:
            handler = logging.handlers.SysLogHandler(
                SYSTEM_LOG, facility=logging.handlers.SysLogHandler.LOG_DAEMON
            )
        except OSError:
            pass  # nobody listens there: a mount is worth more than its log
        else:
            handler.setFormatter(logging.Formatter(f"tmemfs[{os.getpid()}]: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
