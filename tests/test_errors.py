"""Messages: one line, the nearest valid word, and an exit code of mount(8)."""

import errno

import pytest

from tmemfs import errors
from tmemfs.errors import (
    InternalError,
    Interrupted,
    MountFailure,
    NotPermitted,
    SystemFailure,
    TmemfsError,
    UsageError,
    as_error,
)


def test_a_message_is_one_line_whatever_a_file_is_called() -> None:
    error = MountFailure("/a\nb\x1b[31m: the source does not exist")
    assert str(error) == "/a\\nb\\x1b[31m: the source does not exist"


def test_the_nearest_valid_word_is_named() -> None:
    error = UsageError.unknown("option", "budgt", ["swap", "budget", "page_size"])
    assert str(error) == "unknown option 'budgt'; did you mean 'budget'?"


def test_no_word_is_named_where_none_is_near() -> None:
    assert str(UsageError.unknown("option", "zzz", ["budget"])) == "unknown option 'zzz'"


@pytest.mark.parametrize(
    ("exc", "kind", "message"),
    [
        (MountFailure("x"), MountFailure, "x"),
        (OSError(errno.ENOENT, "No such file", "/a"), MountFailure, "/a: No such file"),
        (OSError(errno.EACCES, "Denied", "/a", None, "/b"), NotPermitted, "/a -> /b: Denied"),
        (OSError(errno.EPERM, "Denied"), NotPermitted, "Denied"),
        (OSError(errno.ENOMEM, "No memory"), SystemFailure, "No memory"),
        (OSError("made by hand"), MountFailure, "made by hand"),
        (TimeoutError(), MountFailure, "TimeoutError"),
        (MemoryError(), SystemFailure, "out of memory"),
        (KeyboardInterrupt(), Interrupted, "interrupted"),
        (
            BaseExceptionGroup("tasks", [BaseExceptionGroup("inner", [KeyboardInterrupt()])]),
            Interrupted,
            "interrupted",
        ),
        (ExceptionGroup("tasks", [MountFailure("x")]), MountFailure, "x"),
    ],
)
def test_any_exception_has_a_message_and_a_code(
    exc: BaseException, kind: type[TmemfsError], message: str
) -> None:
    error = as_error(exc)
    assert type(error) is kind
    assert str(error) == message


def test_a_mistake_of_ours_says_so() -> None:
    error = as_error(ValueError("x"))
    assert isinstance(error, InternalError)
    assert "report" in str(error)
    assert "ValueError('x')" in str(error)


def test_a_group_of_several_is_a_mistake_of_ours() -> None:
    group = ExceptionGroup("tasks", [MountFailure("x"), MountFailure("y")])
    assert isinstance(as_error(group), InternalError)


def test_every_error_has_a_code_of_mount() -> None:
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, TmemfsError)
    ]
    assert MountFailure in kinds
    assert {kind.exit_code for kind in kinds} <= {1, 2, 4, 8, 16, 32, 64}
