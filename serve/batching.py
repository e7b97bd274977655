"""Micro-batches: what many requests ask at the same time goes through the network together."""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from encode.encoder import Encoder, TextEncoder
from encode.preprocess import Pixels
from schema.collection import Fingerprint
from schema.errors import EncoderUnavailable
from schema.product import Vector, Vectors
from serve.deadline import Deadline, TooLate, current

_NO_DEADLINE = 600.0


@dataclass(frozen=True, slots=True, eq=False)
class _Item:
    """A picture or a text that waits for its vector."""

    asked: Pixels | str
    deadline: Deadline | None
    vector: "Future[Vector]" = field(default_factory=Future)


class Batched:
    """An encoder for many callers at once: it takes what waits, up to a batch, whenever it is free.

    A caller waits no longer than for the batch under way and its own; what nobody waits for any more is left out.
    `lanes` threads own the device. `observe` is told the size of each batch.
    """

    def __init__(
        self, encoder: Encoder, batch_size: int, lanes: int, observe: Callable[[int], object] = lambda size: None
    ) -> None:
        self.inner = encoder
        self._batch_size = batch_size
        self._observe = observe
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._work, name=f"encoder-{n}", daemon=True) for n in range(lanes)]
        for thread in self._threads:
            thread.start()

    @property
    def fingerprint(self) -> Fingerprint:
        """That of the encoder."""
        return self.inner.fingerprint

    @property
    def dim(self) -> int:
        """That of the encoder."""
        return self.inner.dim

    @property
    def waiting(self) -> int:
        """How many pictures and texts wait."""
        return self._queue.qsize()

    def prepare(self, image: Image.Image) -> Pixels:
        """Prepare a picture, on the caller's thread."""
        return self.inner.prepare(image)

    def encode_images(self, batch: Pixels) -> Vectors:
        """Encode prepared pictures, together with those of other callers. Raises TooLate."""
        return self._encoded(list(batch))

    def close(self) -> None:
        """Finish what waits, then end."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _encoded(self, asked: Sequence[Pixels | str]) -> Vectors:
        deadline = current()
        items = [_Item(one, deadline) for one in asked]
        for item in items:
            self._queue.put(item)
        try:
            return np.stack([item.vector.result(deadline.left if deadline else _NO_DEADLINE) for item in items])
        except TimeoutError:
            if deadline is not None:
                deadline.check()
            raise TooLate("the encoder does not answer") from None

    def _work(self) -> None:
        while (first := self._queue.get()) is not None:
            batch = [first, *self._waiting()]
            wanted = [item for item in batch if item.deadline is None or item.deadline.left]
            for item in batch:
                if item not in wanted:
                    item.vector.set_exception(TooLate("too late to be encoded"))
            self._encode(wanted)

    def _waiting(self) -> list[_Item]:
        found: list[_Item] = []
        while len(found) < self._batch_size - 1:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
            if item is None:  # for the loop: it ends when this batch is done
                self._queue.put(None)
                break
            found.append(item)
        return found

    def _encode(self, batch: Sequence[_Item]) -> None:
        pictures = [item for item in batch if not isinstance(item.asked, str)]
        texts = [item for item in batch if isinstance(item.asked, str)]
        for items, run in ((pictures, self._run_images), (texts, self._run_texts)):
            if items:
                self._observe(len(items))
                self._settle(items, run)

    def _settle(self, items: Sequence[_Item], run: Callable[[Sequence[_Item]], Vectors]) -> None:
        try:
            vectors = run(items)
        # Whatever a network raises is the answer to those who asked, not the end of the thread that serves all others.
        except Exception as error:  # noqa: BLE001
            if len(items) > 1:
                for item in items:
                    self._settle([item], run)
            else:
                items[0].vector.set_exception(_ours(error))
            return
        for item, vector in zip(items, vectors, strict=True):
            item.vector.set_result(vector)

    def _run_images(self, items: Sequence[_Item]) -> Vectors:
        return self.inner.encode_images(np.stack([item.asked for item in items]))

    def _run_texts(self, items: Sequence[_Item]) -> Vectors:
        raise NotImplementedError("only an encoder with words gets texts")


class BatchedWords(Batched):
    """The same for an encoder that knows words."""

    inner: TextEncoder

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Encode texts, together with those of other callers. Raises TooLate."""
        return self._encoded(list(texts))

    def _run_texts(self, items: Sequence[_Item]) -> Vectors:
        return self.inner.encode_texts([str(item.asked) for item in items])


def batched(encoder: Encoder, batch_size: int, lanes: int, observe: Callable[[int], object]) -> Batched:
    """Put an encoder behind micro-batches."""
    kind = BatchedWords if isinstance(encoder, TextEncoder) else Batched
    return kind(encoder, batch_size, lanes, observe)


def _ours(error: Exception) -> Exception:
    from schema.errors import LookalikeError

    if isinstance(error, LookalikeError):
        return error
    return EncoderUnavailable(f"the encoder has failed: {error}")
