"""Running a stage of a pipeline at the same time as the others: on a thread of its own, or on several."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, Queue
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class _End:
    """The last item of a background thread: the error that ended it, or None."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def in_background(items: Iterable[Item], *, ahead: int) -> Generator[Item]:
    """Iterate on a thread of its own, at most `ahead` items ahead of the consumer.

    An error of the iteration is raised here. Closing the generator ends the thread and closes `items`.
    """
    queue: Queue[Item | _End] = Queue(ahead)
    stopped = threading.Event()
    thread = threading.Thread(target=_fill, args=(items, queue, stopped), daemon=True)
    thread.start()
    try:
        while not isinstance(item := queue.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stopped.set()
        while thread.is_alive():
            _make_room(queue)
            thread.join(timeout=0.05)


def _fill(items: Iterable[Item], queue: Queue[Item | _End], stopped: threading.Event) -> None:
    error = None
    try:
        for item in items:
            queue.put(item)
            if stopped.is_set():
                break
    # Any error is raised again on the consumer's thread.
    except BaseException as caught:  # noqa: BLE001
        error = caught
    finally:
        if isinstance(items, Generator):
            items.close()
        queue.put(_End(error))


def _make_room(queue: Queue[Item]) -> None:
    """Empty a queue without a reader, so that its producer wakes up and sees that it has to stop."""
    try:
        while True:
            queue.get_nowait()
    except Empty:
        return


def in_parallel(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int, ahead: int, name: str = "worker"
) -> Generator[Result]:
    """Apply a function on `workers` threads; yield the results in the order of the items.

    At most `ahead` items are submitted before the next result is yielded. A result that is ready is yielded before the
    next item is submitted. The threads are called `name`.
    """
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix=name) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                while pending and (pending[0].done() or len(pending) > ahead):
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
