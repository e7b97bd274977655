"""Batches across requests: images and texts for the encoder, and searches of the collection."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from PIL import Image

from lookalike.encode.encoder import Encoder, TextEncoder
from lookalike.encode.preprocess import Pixels
from lookalike.schema.collection import Fingerprint
from lookalike.schema.milvus.reader import Row
from lookalike.schema.milvus.store import Store
from lookalike.schema.product import Vector, Vectors
from lookalike.search.query_groups import run_grouped
from lookalike.serve.runtime.micro_batcher import MicroBatcher

_MAX_SEARCHES = 64
"""Searches in one call to Milvus: 12 times as fast as one by one on Milvus Lite, 8 times on a server."""

_SEARCH_WORKERS = 4

ObserveBatch = Callable[[int], object]
"""Called with the size of each batch."""


class BatchedEncoder:
    """An encoder whose images are encoded in batches with those of other requests. Made by `batch_encoder`."""

    def __init__(self, encoder: Encoder, batcher: MicroBatcher[Pixels, Vector]) -> None:
        self._encoder = encoder
        self._batcher = batcher

    @property
    def fingerprint(self) -> Fingerprint:
        """The fingerprint of the encoder."""
        return self._encoder.fingerprint

    @property
    def dim(self) -> int:
        """The length of a vector."""
        return self._encoder.dim

    @property
    def edge(self) -> int | None:
        """The shorter edge of a prepared image in pixels, None if unknown."""
        return self._encoder.edge

    @property
    def queue_length(self) -> int:
        """The number of queued images and texts."""
        return self._batcher.queue_length

    def prepare(self, image: Image.Image) -> Pixels:
        """Prepare an image, on the caller's thread."""
        return self._encoder.prepare(image)

    def encode_images(self, batch: Pixels) -> Vectors:
        """Encode prepared images: (n, …) to (n, dim). Raises DeadlineExceeded, EncoderUnavailable."""
        return np.stack(self._batcher.run_items(list(batch)))

    def close(self) -> None:
        """Encode what is queued, then end the workers."""
        self._batcher.close()


class BatchedTextEncoder(BatchedEncoder):
    """A batched encoder of images and texts, both in one queue."""

    def __init__(self, encoder: TextEncoder, batcher: MicroBatcher[Pixels | str, Vector]) -> None:
        super().__init__(encoder, batcher)
        self._text_batcher = batcher

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Encode texts: n to (n, dim). Raises DeadlineExceeded, EncoderUnavailable, BadQuery."""
        return np.stack(self._text_batcher.run_items(texts))


def batch_encoder(encoder: Encoder, batch_size: int, lanes: int, observe: ObserveBatch) -> BatchedEncoder:
    """Put an encoder behind micro-batches of up to `batch_size`, run by `lanes` worker threads."""
    if isinstance(encoder, TextEncoder):
        return BatchedTextEncoder(
            encoder, MicroBatcher(partial(_encode_images_and_texts, encoder, observe), batch_size, lanes)
        )
    return BatchedEncoder(encoder, MicroBatcher(partial(_encode_images, encoder, observe), batch_size, lanes))


def _encode_images(encoder: Encoder, observe: ObserveBatch, images: Sequence[Pixels]) -> list[Vector]:
    observe(len(images))
    return list(encoder.encode_images(np.stack(images)))


def _encode_images_and_texts(
    encoder: TextEncoder, observe: ObserveBatch, items: Sequence[Pixels | str]
) -> list[Vector]:
    """Encode the images of a batch in one call and its texts in another; returns vectors in the order of `items`."""
    images = [item for item in items if not isinstance(item, str)]
    texts = [item for item in items if isinstance(item, str)]
    image_vectors = iter(_encode_images(encoder, observe, images) if images else ())
    text_vectors = iter(_encode_texts(encoder, observe, texts) if texts else ())
    return [next(text_vectors) if isinstance(item, str) else next(image_vectors) for item in items]


def _encode_texts(encoder: TextEncoder, observe: ObserveBatch, texts: Sequence[str]) -> list[Vector]:
    observe(len(texts))
    return list(encoder.encode_texts(texts))


class _QueuedSearch(NamedTuple):
    """One search in the queue; those that differ in their vector alone go to Milvus in one call."""

    vector: Vector
    limit: int
    where: str
    fields: tuple[str, ...]


class BatchedSearch:
    """Searches of one collection, batched across requests: one call for those with the same filter and limit."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # Milvus Lite is Python: because of the GIL, a second thread would not make it faster.
        workers = 1 if store.is_exact else _SEARCH_WORKERS
        self._batcher: MicroBatcher[_QueuedSearch, list[Row]] = MicroBatcher(self._run, _MAX_SEARCHES, workers)

    def search_many(
        self, vectors: Sequence[Vector], limit: int, *, where: str = "", fields: Sequence[str] = ()
    ) -> list[list[Row]]:
        """Search like `Store.search_many`. Raises DeadlineExceeded, StoreUnavailable."""
        return self._batcher.run_items([_QueuedSearch(vector, limit, where, tuple(fields)) for vector in vectors])

    def close(self) -> None:
        """Run the queued searches, then end the workers."""
        self._batcher.close()

    def _run(self, searches: Sequence[_QueuedSearch]) -> list[list[Row]]:
        return run_grouped(searches, key=lambda one: (one.limit, one.where, one.fields), run=self._run_group)

    def _run_group(self, searches: Sequence[_QueuedSearch]) -> list[list[Row]]:
        """Run searches with the same limit, filter and fields."""
        _, limit, where, fields = searches[0]
        return self._store.search_many([search.vector for search in searches], limit, where=where, fields=fields)
