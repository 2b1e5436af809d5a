"""What a process is doing just now, as text."""

import logging
import os
import signal

import pytest
import trio

from tmemfs import dump


async def waits_for(event: trio.Event) -> None:
    await event.wait()


async def test_tasks_that_wait_at_one_place_are_told_once() -> None:
    event = trio.Event()
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(waits_for, event)
        await trio.testing.wait_all_tasks_blocked()
        found = [
            text for text in dump.tasks(trio.lowlevel.current_root_task()) if "waits_for" in text
        ]
        event.set()
    [text] = found
    assert text.startswith("5 x ")
    assert "tests/test_dump.py:" in text
    assert "trio/_sync.py" in text or "_sync.py" in text


async def test_threads_are_told_with_their_stacks() -> None:
    reached, go_on = trio.Event(), trio.Event()

    def waits_in_thread() -> None:
        trio.from_thread.run_sync(reached.set)
        trio.from_thread.run(go_on.wait)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, waits_in_thread)
        await reached.wait()
        found = list(dump.threads())
        go_on.set()
    assert any("waits_in_thread" in text for text in found)
    assert any(text.startswith("MainThread") for text in found)


@pytest.mark.expects_log
async def test_a_signal_logs_all(caplog: pytest.LogCaptureFixture) -> None:
    before = signal.getsignal(signal.SIGUSR1)
    dump.on_signal()
    try:
        with caplog.at_level(logging.WARNING):
            os.kill(os.getpid(), signal.SIGUSR1)
            await trio.sleep(0)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert "what goes on, asked for by SIGUSR1" in caplog.text
    assert "test_a_signal_logs_all" in caplog.text


@pytest.mark.expects_log
def test_a_signal_before_there_are_tasks(caplog: pytest.LogCaptureFixture) -> None:
    before = signal.getsignal(signal.SIGUSR1)
    dump.on_signal()
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert "thread: MainThread" in caplog.text
    assert "task: " not in caplog.text
