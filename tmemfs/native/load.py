"""The extension: where it could not be built it is None, and everything works without it."""

from __future__ import annotations

import importlib
from types import ModuleType


def _load() -> ModuleType | None:
    try:
        return importlib.import_module("tmemfs.native._native")
    except ImportError:
        return None


extension = _load()
