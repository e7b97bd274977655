"""Work on threads, so that the event loop never blocks; what nobody waits for is let go."""

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from starlette.requests import Request

from lookalike.serve.runtime.deadline import Deadline, DeadlineExceeded, deadline_scope

Result = TypeVar("Result")


class RequestExecutor:
    """Threads that work on requests, and how many seconds each request has."""

    def __init__(self, threads: int, seconds: float) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="desk")
        self._seconds = seconds

    async def run(self, request: Request, work: Callable[[], Result]) -> Result:
        """Do some work for a request, whose body was read. Raises DeadlineExceeded, and what the work raises."""
        deadline = Deadline(self._seconds)
        watching = asyncio.create_task(_watch(request, deadline))
        try:
            return await self._within(deadline, work)
        finally:
            watching.cancel()

    async def run_for_many(self, work: Callable[[], Result]) -> Result:
        """Do some work that others than who asked for it wait for too. Raises DeadlineExceeded, and what the work raises."""
        return await self._within(Deadline(self._seconds), work)

    def close(self) -> None:
        """Finish what was begun."""
        self._threads.shutdown()

    async def _within(self, deadline: Deadline, work: Callable[[], Result]) -> Result:
        try:
            with deadline_scope(deadline):
                context = contextvars.copy_context()
            working = asyncio.get_running_loop().run_in_executor(self._threads, context.run, _begin, deadline, work)
            async with asyncio.timeout(self._seconds):
                return await working
        except TimeoutError:
            raise DeadlineExceeded(f"no answer within {self._seconds:g} s; the service is busy, ask again") from None
        finally:
            deadline.abandon()


def _begin(deadline: Deadline, work: Callable[[], Result]) -> Result:
    deadline.check()
    return work()


async def _watch(request: Request, deadline: Deadline) -> None:
    """Wait for the client to go away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    deadline.abandon()
