"""Where a serving process logs: a terminal in the foreground, the system's log, or a file."""

from __future__ import annotations

import logging
import logging.handlers
import os

SYSTEM_LOG = "/dev/log"


def start(where: str | None, *, foreground: bool, debug: bool = False) -> None:
    """Log to *where*: ``stderr``, ``syslog`` or a file; None for what suits where it runs.

    Raises OSError where the file cannot be written.
    """
    if where is None:
        where = "stderr" if foreground else "syslog"
    if where == "stderr":
        to_stderr(debug=debug)
    elif where == "syslog":
        to_system_log()
    else:
        to_file(where, debug=debug)


def to_file(path: str, *, debug: bool) -> None:
    """Log to a file, which may be moved away while it is written to (logrotate)."""
    handler = logging.handlers.WatchedFileHandler(path, encoding="utf-8")
    handler.setFormatter(
        logging.Formatter(f"%(asctime)s tmemfs[{os.getpid()}]: %(levelname)s: %(message)s")
    )
    level = logging.DEBUG if debug else logging.INFO
    logging.basicConfig(level=level, handlers=[handler], force=True)


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
