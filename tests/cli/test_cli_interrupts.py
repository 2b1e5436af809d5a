"""A signal ends the work, never a step or the undoing."""

import signal

import pytest

from tmemfs.cli.interrupts import SIGNALS, Interrupted, Undo, undoing


def send(number: int) -> None:
    # To this thread: one that is just ending could take what is sent to the process, too late.
    signal.raise_signal(number)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_the_work_and_all_is_undone_in_reverse(number: int) -> None:
    undone: list[str] = []
    with pytest.raises(Interrupted) as caught, undoing() as undo:
        undo.callback(undone.append, "first")
        undo.callback(undone.append, "second")
        send(number)
        undone.append("not reached")
    assert caught.value.number == number
    assert undone == ["second", "first"]


def test_a_step_that_is_held_is_done_whole() -> None:
    done: list[str] = []
    with pytest.raises(Interrupted), undoing() as undo:
        with undo.held():
            send(signal.SIGTERM)
            done.append("step")
        done.append("not reached")
    assert done == ["step"]


def test_no_signal_reaches_the_undoing() -> None:
    undone: list[str] = []

    def step(undo: Undo) -> None:
        send(signal.SIGINT)
        with undo.held():
            send(signal.SIGTERM)
        undone.append("step")

    with undoing() as undo:
        undo.callback(step, undo)
    assert undone == ["step"]


def test_a_failing_step_does_not_keep_the_others_from_being_undone() -> None:
    undone: list[str] = []

    def fail() -> None:
        raise OSError("this step fails")

    with pytest.raises(OSError, match="this step fails"), undoing() as undo:
        undo.callback(undone.append, "first")
        undo.callback(fail)
    assert undone == ["first"]


def test_the_handlers_of_before_come_back() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with undoing():
        pass
    assert [signal.getsignal(number) for number in SIGNALS] == before
