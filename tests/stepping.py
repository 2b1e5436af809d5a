"""Errors in the middle of what the core does: at each call that it makes, and at each allocation.

    for step in itertools.count():
        error = fail_at(step, operation)    # which is None where it was done before that step
        ...

Two kinds of steps, each with what it can and what it cannot show:

* a **line**: any error, before any statement of `tmemfs.pages` and `tmemfs.tmem` that calls
  something. More than can really happen: some of these calls cannot fail.
* an **allocation**: the interpreter gets no memory, for an int of a counter or the array of a
  node. Real, but MemoryError only; by CPython's own test module, where it is there.
"""

from __future__ import annotations

import ast
import gc
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import tmemfs.pages
import tmemfs.tmem

try:
    import _testcapi
except ImportError:  # some distributions have it in a package of its own
    _testcapi = None

has_allocations = _testcapi is not None
"""whether allocations can be made to fail here"""

BURST = 30
"""more allocations than it takes to deal with an error"""

ERRORS: tuple[type[Exception], ...] = (MemoryError, OSError, ValueError)

Operation = Callable[[], object]
FailAt = Callable[[int, Operation], "Exception | None"]


def fail_at_line(
    step: int, operation: Operation, error: type[Exception] | None = None
) -> Exception | None:
    """Do *operation* with an error before its statement number *step*.

    Returns the error that came out, None where it was done before that. An error that the core
    itself takes care of is as good as none, and the next one is tried.
    """
    while True:
        reached, raised = _fail_at_line(step, operation, error or ERRORS[step % len(ERRORS)])
        if raised is not None or not reached:
            return raised
        step += 1


def _fail_at_line(
    step: int, operation: Operation, error: type[Exception]
) -> tuple[bool, Exception | None]:
    left = step + 1

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        lines = _calling_lines(frame.f_code.co_filename)
        if not lines:
            return None
        if event == "line" and frame.f_lineno in lines:
            left -= 1
            if not left:
                sys.settrace(None)
                raise error("injected")
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        operation()
    except (*ERRORS,) as raised:
        if raised.args != ("injected",):
            raise
        return True, raised
    finally:
        sys.settrace(before)
    return not left, None


@cache
def _calling_lines(filename: str) -> frozenset[int]:
    """The lines of a file of the core on which a statement begins that calls something."""
    if Path(filename).parent not in {Path(p.__path__[0]) for p in (tmemfs.pages, tmemfs.tmem)}:
        return frozenset()
    tree = ast.parse(Path(filename).read_text(encoding="utf-8"))
    lines = set()
    for statement in ast.walk(tree):
        if isinstance(statement, ast.stmt) and not isinstance(
            statement, ast.FunctionDef | ast.ClassDef
        ):
            # Of a compound statement, its head.
            parts = [n for n in ast.iter_child_nodes(statement) if isinstance(n, ast.expr)]
            parts += [item.context_expr for item in getattr(statement, "items", ())]
            if any(isinstance(node, ast.Call) for part in parts for node in ast.walk(part)):
                lines.add(statement.lineno)
    return frozenset(lines)


def fail_at_allocation(step: int, operation: Operation, *, burst: int = 1) -> Exception | None:
    """Do *operation* with no memory for its allocation number *step*, and so many in a *burst*.

    Returns the MemoryError, None where it was done before that, or without that memory. (A burst
    without an end would be one: CPython 3.11 goes round for ever where an error passes a handler
    and there is no memory to note from where.)
    """
    assert _testcapi is not None
    # It would free what was left elsewhere, and run code of others without memory.
    gc.disable()
    try:
        _testcapi.set_nomemory(step, step + burst)
        operation()
    except MemoryError as error:
        return error
    finally:
        _testcapi.remove_mem_hooks()
        gc.enable()
    return None


def fail_at_allocations(step: int, operation: Operation) -> Exception | None:
    """Do *operation* with no memory for a while, from its allocation number *step* on."""
    return fail_at_allocation(step, operation, burst=BURST)
