"""The encoder and the collection for many callers at once: what they ask at the same time is asked together."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from lookalike.encode.encoder import Encoder, TextEncoder
from lookalike.encode.preprocess import Pixels
from lookalike.schema.collection import Fingerprint
from lookalike.schema.milvus.reader import Row
from lookalike.schema.milvus.store import Store
from lookalike.schema.product import Vector, Vectors
from lookalike.search.grouping import run_grouped
from lookalike.serve.runtime.micro_batcher import MicroBatcher

_SEARCHES = 64
"""Questions in one call to Milvus: a dozen times as fast as one by one on Milvus Lite, eight times on a server."""

_SEARCHERS = 4


class BatchedEncoder:
    """An encoder whose images and texts go through the network with those of other callers.

    `lanes` threads own the device. `observe` is told the size of each batch.
    """

    def __init__(
        self, encoder: Encoder, batch_size: int, lanes: int, observe: Callable[[int], object] = lambda size: None
    ) -> None:
        self.inner = encoder
        self._observe = observe
        self._together: MicroBatcher[Pixels | str, Vector] = MicroBatcher(self._run, batch_size, lanes)

    @property
    def fingerprint(self) -> Fingerprint:
        """That of the encoder."""
        return self.inner.fingerprint

    @property
    def dim(self) -> int:
        """That of the encoder."""
        return self.inner.dim

    @property
    def edge(self) -> int | None:
        """That of the encoder."""
        return self.inner.edge

    @property
    def waiting(self) -> int:
        """How many images and texts wait."""
        return self._together.waiting

    def prepare(self, image: Image.Image) -> Pixels:
        """Prepare an image, on the caller's thread."""
        return self.inner.prepare(image)

    def encode_images(self, batch: Pixels) -> Vectors:
        """Encode prepared images. Raises TooLate, EncoderUnavailable."""
        return np.stack(self._together.do(list(batch)))

    def close(self) -> None:
        """Finish what waits, then end."""
        self._together.close()

    def _run(self, asked: Sequence[Pixels | str]) -> list[Vector]:
        images = [one for one in asked if not isinstance(one, str)]
        texts = [one for one in asked if isinstance(one, str)]
        of_images = iter(self._encoded(images, lambda: self.inner.encode_images(np.stack(images))))
        of_texts = iter(self._encoded(texts, lambda: self._texts(texts)))
        return [next(of_texts) if isinstance(one, str) else next(of_images) for one in asked]

    def _encoded(self, asked: Sequence[Pixels | str], encode: Callable[[], Vectors]) -> Sequence[Vector]:
        if not asked:
            return []
        self._observe(len(asked))
        return list(encode())

    def _texts(self, texts: Sequence[str]) -> Vectors:
        raise NotImplementedError("only an encoder with words gets texts")


class BatchedTextEncoder(BatchedEncoder):
    """The same for an encoder that knows words."""

    inner: TextEncoder

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Encode texts. Raises TooLate, EncoderUnavailable, BadQuery."""
        return np.stack(self._together.do(list(texts)))

    def _texts(self, texts: Sequence[str]) -> Vectors:
        return self.inner.encode_texts(texts)


def batch_encoder(encoder: Encoder, batch_size: int, lanes: int, observe: Callable[[int], object]) -> BatchedEncoder:
    """Put an encoder behind micro-batches."""
    kind = BatchedTextEncoder if isinstance(encoder, TextEncoder) else BatchedEncoder
    return kind(encoder, batch_size, lanes, observe)


class _Question(NamedTuple):
    """A search, as far as it can be asked together with others."""

    vector: Vector
    limit: int
    where: str
    fields: tuple[str, ...]


class BatchedSearch:
    """Searches of a collection, those with the same filter and limit in one call."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # Milvus Lite is Python: a second thread would only take turns with the first.
        workers = 1 if store.exact else _SEARCHERS
        self._together: MicroBatcher[_Question, list[Row]] = MicroBatcher(self._run, _SEARCHES, workers)

    def search_many(
        self, vectors: Sequence[Vector], limit: int, *, where: str = "", fields: Sequence[str] = ()
    ) -> list[list[Row]]:
        """Search as Store.search_many does. Raises TooLate, StoreUnavailable."""
        return self._together.do([_Question(vector, limit, where, tuple(fields)) for vector in vectors])

    def close(self) -> None:
        """Finish what waits, then end."""
        self._together.close()

    def _run(self, searches: Sequence[_Question]) -> list[list[Row]]:
        return run_grouped(searches, key=lambda one: (one.limit, one.where, one.fields), run=self._run_group)

    def _run_group(self, searches: Sequence[_Question]) -> list[list[Row]]:
        """Run searches with the same limit, filter and fields."""
        _, limit, where, fields = searches[0]
        return self._store.search_many([search.vector for search in searches], limit, where=where, fields=fields)
