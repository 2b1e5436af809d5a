"""Counts the Python frames that the handlers enter: what a request costs before any byte moves."""

import sys
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any


def frames_of(request: Callable[[], Coroutine[Any, Any, Any]]) -> list[str]:
    """The functions that are entered, in order, while the coroutine of *request* runs to its end.

    It must not have to wait: a frame that is resumed would count once more.
    """
    entered: list[str] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            entered.append(frame.f_code.co_qualname)

    coroutine = request()
    sys.setprofile(note)
    try:
        coroutine.send(None)
    except StopIteration:
        pass
    else:
        raise AssertionError("it waits")
    finally:
        sys.setprofile(None)
    return entered
