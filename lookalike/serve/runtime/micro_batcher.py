"""Micro-batches: what many requests ask at the same time is done together, by few workers."""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from lookalike.schema.errors import EncoderUnavailable, LookalikeError, StoreUnreachable
from lookalike.serve.runtime.deadline import Deadline, DeadlineExceeded, current_deadline

Asked = TypeVar("Asked")
Got = TypeVar("Got")

_NO_DEADLINE = 600.0


@dataclass(frozen=True, slots=True, eq=False)
class _Item(Generic[Asked, Got]):
    """Something that waits to be done."""

    asked: Asked
    deadline: Deadline | None
    got: "Future[Got]" = field(default_factory=Future)


class MicroBatcher(Generic[Asked, Got]):
    """Workers that take what waits, up to `most`, whenever they are free: nothing waits for a batch to fill.

    `run` does a batch and gives a result for each. What nobody waits for any more is left out; where a batch fails,
    each of it is done alone, so that one bad request does not fail the others.
    """

    def __init__(self, run: Callable[[Sequence[Asked]], Sequence[Got]], most: int, workers: int) -> None:
        self._run = run
        self._most = most
        self._queue: queue.SimpleQueue[_Item[Asked, Got] | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """How much waits."""
        return self._queue.qsize()

    def do(self, asked: Sequence[Asked]) -> list[Got]:
        """Have it done, together with what others ask. Raises DeadlineExceeded, and what `run` raises."""
        deadline = current_deadline()
        items: list[_Item[Asked, Got]] = [_Item(one, deadline) for one in asked]
        for item in items:
            self._queue.put(item)
        try:
            return [item.got.result(deadline.left if deadline else _NO_DEADLINE) for item in items]
        except TimeoutError:
            if deadline is not None:
                deadline.check()
            raise DeadlineExceeded(f"nothing was heard for {_NO_DEADLINE:g} s") from None

    def close(self) -> None:
        """Finish what waits, then end."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (first := self._queue.get()) is not None:
            wanted = []
            for item in (first, *self._waiting()):
                if item.deadline is None or item.deadline.left:
                    wanted.append(item)
                else:
                    item.got.set_exception(DeadlineExceeded("nobody waits for it any more"))
            if wanted:
                self._settle(wanted)

    def _waiting(self) -> list[_Item[Asked, Got]]:
        found: list[_Item[Asked, Got]] = []
        while len(found) < self._most - 1:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
            if item is None:  # for the loop: it ends when this batch is done
                self._queue.put(None)
                break
            found.append(item)
        return found

    def _settle(self, items: Sequence[_Item[Asked, Got]]) -> None:
        try:
            results = self._run([item.asked for item in items])
        # Whatever is raised is the answer to those who asked, not the end of the thread that serves all others.
        except Exception as error:  # noqa: BLE001
            self._fail(items, error)
            return
        for item, result in zip(items, results, strict=True):
            item.got.set_result(result)

    def _fail(self, items: Sequence[_Item[Asked, Got]], error: Exception) -> None:
        # Milvus is away for one as for all.
        if len(items) == 1 or isinstance(error, StoreUnreachable):
            for item in items:
                item.got.set_exception(_ours(error))
        else:
            for item in items:
                self._settle([item])


def _ours(error: Exception) -> Exception:
    return error if isinstance(error, LookalikeError) else EncoderUnavailable(f"the encoder has failed: {error}")
