"""A thread pool for the blocking work of requests, so that the event loop never blocks."""

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from starlette.requests import Request

from lookalike.serve.runtime.deadline import Deadline, DeadlineExceeded, deadline_scope, timeout_message

Result = TypeVar("Result")


class RequestExecutor:
    """Runs work of requests on `threads` threads; each piece of work has `seconds` until its deadline."""

    def __init__(self, threads: int, seconds: float) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="request")
        self._seconds = seconds

    async def run(self, request: Request, work: Callable[[], Result]) -> Result:
        """Run work for one request, whose body has been read; abandon it when the client disconnects.

        Raises DeadlineExceeded, and what the work raises.
        """
        deadline = Deadline(self._seconds)
        watcher = asyncio.create_task(_abandon_on_disconnect(request, deadline))
        try:
            return await self._run_within(deadline, work)
        finally:
            watcher.cancel()

    async def run_shared(self, work: Callable[[], Result]) -> Result:
        """Run work whose result several requests wait for: a client that disconnects does not end it.

        Raises DeadlineExceeded, and what the work raises.
        """
        return await self._run_within(Deadline(self._seconds), work)

    def close(self) -> None:
        """Finish the work that has started or is queued, then end the threads."""
        self._pool.shutdown()

    async def _run_within(self, deadline: Deadline, work: Callable[[], Result]) -> Result:
        try:
            with deadline_scope(deadline):
                context = contextvars.copy_context()
            future = asyncio.get_running_loop().run_in_executor(self._pool, context.run, _check_and_run, deadline, work)
            async with asyncio.timeout(self._seconds):
                return await future
        except TimeoutError:
            raise DeadlineExceeded(timeout_message(self._seconds)) from None
        finally:
            deadline.abandon()


def _check_and_run(deadline: Deadline, work: Callable[[], Result]) -> Result:
    # The work may have waited for a free thread until after its deadline.
    deadline.check()
    return work()


async def _abandon_on_disconnect(request: Request, deadline: Deadline) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    deadline.abandon()
