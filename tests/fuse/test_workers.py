"""Tasks that serve requests: one reads, and another one as soon as that one has to wait."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from tmemfs.fuse import workers
from tmemfs.fuse.workers import Workers

SECONDS = 30


class Server:
    """Serves bytes out of a pipe: each is a request, which takes until an event of `waits`."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.reading, False)
        self.waits: dict[bytes, trio.Event] = {}
        self.served: list[bytes] = []
        self.tasks: dict[bytes, trio.lowlevel.Task] = {}
        self.workers: Workers
        self.running = 0
        self.failing = b""

    async def loop(self) -> None:
        """What pyfuse3's loop does."""
        self.running += 1
        try:
            while await self.workers.readable():
                # Never EAGAIN: nobody else may have taken what this one was told of.
                request = os.read(self.reading, 1)
                if not request:
                    break
                self.tasks[request] = trio.lowlevel.current_task()
                if request == self.failing:
                    raise ValueError("a mistake")
                if request in self.waits:
                    await self.waits[request].wait()
                self.served.append(request)
        finally:
            self.running -= 1
            self.workers.ended()

    def ask(self, requests: bytes) -> None:
        os.write(self.writing, requests)

    async def wait_for(self, *requests: bytes) -> None:
        with trio.fail_after(SECONDS):
            while not set(requests) <= set(self.served):
                await trio.sleep(0)


@asynccontextmanager
async def serving(most: int = 100) -> AsyncIterator[Server]:
    server = Server()
    async with trio.open_nursery() as nursery:
        server.workers = Workers(server.reading, most, lambda: nursery.start_soon(server.loop))
        trio.lowlevel.add_instrument(server.workers)
        server.workers.start()
        try:
            yield server
        finally:
            nursery.cancel_scope.cancel()
    trio.lowlevel.remove_instrument(server.workers)
    os.close(server.reading)
    if server.writing >= 0:
        os.close(server.writing)


async def test_one_task_serves_all_that_does_not_wait() -> None:
    async with serving() as server:
        for request in (b"a", b"b", b"c"):
            server.ask(request)
            await server.wait_for(request)
        server.ask(b"defghijklmn")
        await server.wait_for(*(b"%c" % c for c in b"defghijklmn"))
        assert server.served == [b"%c" % c for c in b"abcdefghijklmn"]
        assert len(set(server.tasks.values())) == 1


async def test_another_task_reads_while_one_waits() -> None:
    async with serving() as server:
        server.waits = {b"x": trio.Event(), b"y": trio.Event()}
        server.ask(b"xaybc")
        await server.wait_for(b"a", b"b", b"c")
        assert not {b"x", b"y"} & set(server.served)
        server.waits[b"y"].set()
        await server.wait_for(b"y")
        server.ask(b"d")
        await server.wait_for(b"d")
        server.waits[b"x"].set()
        await server.wait_for(b"x")


async def test_many_that_wait_leave_few_tasks_behind() -> None:
    many = [b"%c" % c for c in range(1, 200)]
    async with serving(most=300) as server:
        server.waits = {request: trio.Event() for request in many}
        server.ask(b"".join(many) + b"\xff")
        await server.wait_for(b"\xff")
        assert server.running >= len(many)
        for event in server.waits.values():
            event.set()
        await server.wait_for(*many)
        await trio.testing.wait_all_tasks_blocked()
        assert server.running <= workers._SPARE + 1


async def test_there_are_never_more_tasks_than_allowed() -> None:
    async with serving(most=3) as server:
        server.waits = {b"%d" % n: trio.Event() for n in range(3)}
        server.ask(b"012a")
        await trio.testing.wait_all_tasks_blocked()
        assert server.running == 3
        assert server.served == []
        server.waits[b"1"].set()
        await server.wait_for(b"1", b"a")
        assert server.running == 3
        for event in server.waits.values():
            event.set()
        await server.wait_for(b"0", b"2")


async def test_others_have_their_turn_while_requests_never_end() -> None:
    async with serving() as server:
        turns = 0
        async with trio.open_nursery() as nursery:

            async def other() -> None:
                nonlocal turns
                while len(server.served) < 200:
                    turns += 1
                    await trio.lowlevel.checkpoint()

            nursery.start_soon(other)
            server.ask(bytes(range(1, 201)))
        assert turns >= 200 // (workers._IN_A_ROW + 1)


async def test_all_end_when_the_session_does() -> None:
    async with serving() as server:
        server.waits = {b"x": trio.Event()}
        server.ask(b"xa")
        await server.wait_for(b"a")
        trio.lowlevel.notify_closing(server.reading)
        await trio.testing.wait_all_tasks_blocked()
        assert server.running == 1  # that which has a request
        server.waits[b"x"].set()
        with trio.fail_after(SECONDS):
            while server.running:
                await trio.sleep(0)
        assert server.served == [b"a", b"x"]


async def test_a_task_that_was_just_told_to_read_hears_of_the_end() -> None:
    async with serving() as server:
        server.waits = {b"x": trio.Event(), b"y": trio.Event()}
        server.ask(b"xy")
        await trio.testing.wait_all_tasks_blocked()
        server.waits[b"x"].set()
        server.waits[b"y"].set()
        await server.wait_for(b"x", b"y")
        server.waits = {b"z": trio.Event()}
        server.ask(b"z")
        await trio.sleep(0)
        server.workers.close()
        trio.lowlevel.notify_closing(server.reading)
        await trio.testing.wait_all_tasks_blocked()
        server.waits[b"z"].set()
        with trio.fail_after(SECONDS):
            while server.running:
                await trio.sleep(0)


async def test_what_ends_at_the_end_of_the_file_lets_others_find_it() -> None:
    async with serving() as server:
        server.waits = {b"x": trio.Event()}
        server.ask(b"x")
        os.close(server.writing)
        server.writing = -1
        await trio.testing.wait_all_tasks_blocked()
        server.waits[b"x"].set()
        with trio.fail_after(SECONDS):
            while server.running:
                await trio.sleep(0)


async def test_a_task_that_fails_takes_the_right_to_read_from_nobody() -> None:
    with pytest.RaisesGroup(ValueError):
        async with serving() as server:
            server.waits = {b"x": trio.Event()}
            server.failing = b"f"
            server.ask(b"xf")
            await trio.testing.wait_all_tasks_blocked()
