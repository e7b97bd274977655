"""Micro-batching: a few worker threads run the items of many requests in batches."""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from lookalike.schema.errors import EncoderUnavailable, LookalikeError, StoreUnreachable
from lookalike.serve.runtime.deadline import Deadline, DeadlineExceeded, current_deadline

# Contravariant: a batcher of images or texts is also a batcher of images.
Item = TypeVar("Item", contravariant=True)
Result = TypeVar("Result")

_MAX_WAIT_SECONDS = 600.0


@dataclass(frozen=True, slots=True, eq=False)
class _Pending(Generic[Item, Result]):
    """An item in the queue, and the future of its result."""

    item: Item
    deadline: Deadline | None
    future: "Future[Result]" = field(default_factory=Future)


class MicroBatcher(Generic[Item, Result]):
    """Queues items; each free worker takes all that wait, up to `max_batch`. It never waits for a batch to fill.

    `run` takes a batch and returns one result for each item. Items whose deadline has passed are skipped. If a batch
    fails, its items are run one by one, so that one bad item does not fail the others.
    """

    def __init__(self, run: Callable[[Sequence[Item]], Sequence[Result]], max_batch: int, workers: int) -> None:
        self._run = run
        self._max_batch = max_batch
        self._queue: queue.SimpleQueue[_Pending[Item, Result] | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    @property
    def queue_length(self) -> int:
        """The length of the queue."""
        return self._queue.qsize()

    def run_items(self, items: Sequence[Item]) -> list[Result]:
        """Queue items and wait for their results. Raises DeadlineExceeded, and what `run` raises."""
        deadline = current_deadline()
        batch: list[_Pending[Item, Result]] = [_Pending(item, deadline) for item in items]
        for pending in batch:
            self._queue.put(pending)
        try:
            return [
                pending.future.result(deadline.seconds_left if deadline else _MAX_WAIT_SECONDS) for pending in batch
            ]
        except TimeoutError:
            if deadline is not None:
                deadline.check()
            raise DeadlineExceeded(f"no result within {_MAX_WAIT_SECONDS:g} s") from None

    def close(self) -> None:
        """Run what is queued, then end the workers."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (first := self._queue.get()) is not None:
            batch = []
            for pending in (first, *self._take_queued()):
                if pending.deadline is None or pending.deadline.seconds_left:
                    batch.append(pending)
                else:
                    pending.future.set_exception(DeadlineExceeded("the deadline passed in the queue"))
            if batch:
                self._run_batch(batch)

    def _take_queued(self) -> list[_Pending[Item, Result]]:
        """Take what else is queued, up to a full batch, without waiting."""
        batch: list[_Pending[Item, Result]] = []
        while len(batch) < self._max_batch - 1:
            try:
                pending = self._queue.get_nowait()
            except queue.Empty:
                break
            if pending is None:  # The signal to end: put it back for `_work`, which reads it after this batch.
                self._queue.put(None)
                break
            batch.append(pending)
        return batch

    def _run_batch(self, batch: Sequence[_Pending[Item, Result]]) -> None:
        try:
            results = self._run([pending.item for pending in batch])
        # Every error goes to the callers; the worker lives on to serve the others.
        except Exception as error:  # noqa: BLE001
            self._fail_batch(batch, error)
            return
        for pending, result in zip(batch, results, strict=True):
            pending.future.set_result(result)

    def _fail_batch(self, batch: Sequence[_Pending[Item, Result]], error: Exception) -> None:
        # An unreachable Milvus fails every item alike: do not retry them one by one.
        if len(batch) == 1 or isinstance(error, StoreUnreachable):
            for pending in batch:
                pending.future.set_exception(_as_our_error(error))
        else:
            for pending in batch:
                self._run_batch([pending])


def _as_our_error(error: Exception) -> Exception:
    return error if isinstance(error, LookalikeError) else EncoderUnavailable(f"the batch failed: {error}")
