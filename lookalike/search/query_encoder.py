"""From the parts of queries to unit vectors: the encoder embeds images and texts, the collection has the products."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from threading import Semaphore

import numpy as np

from lookalike.encode.encoder import Encoder, TextEncoder
from lookalike.encode.engine import Preparation
from lookalike.encode.pixel_budget import PixelBudget
from lookalike.encode.preprocess import Pixels
from lookalike.encode.registry import TEXT_ENCODER
from lookalike.schema.errors import BadImage, BadQuery
from lookalike.schema.product import Vector
from lookalike.search.product_vectors import ProductVectors
from lookalike.search.query import Part
from lookalike.search.resolved_query import PartError, ResolvedPart, mean_vector
from lookalike.search.stage_hooks import CheckDeadline, TimeStage

_BATCH = 32
"""How many images are decoded, then encoded together."""


class QueryEncoder:
    """Turns the parts of queries into vectors; safe to use from several threads.

    `load_encoder` returns the encoder, loading it at the first call. `decode_slots` is held while images are decoded.
    """

    def __init__(
        self,
        load_encoder: Callable[[], Encoder],
        products: ProductVectors,
        pixel_budget: PixelBudget,
        *,
        timer: TimeStage,
        check_deadline: CheckDeadline,
        decode_slots: Semaphore | None,
    ) -> None:
        self._load_encoder = load_encoder
        self._products = products
        self._pixel_budget = pixel_budget
        self._timer = timer
        self._check_deadline = check_deadline
        self._decode_slots = decode_slots or nullcontext()

    def encode_parts(self, parts: Sequence[Part], dim: int) -> list[ResolvedPart | PartError]:
        """Return the vector of each part, of `dim` numbers, or the error of a part that has none.

        Parts of one kind are encoded or looked up together. Raises StoreUnavailable, and what `load_encoder` raises.
        """
        images = self._encode_images([part.image for part in parts if part.image is not None])
        texts = self._encode_texts([part.text for part in parts if part.text is not None])
        products = self._products.find_products({part.product_id for part in parts if part.product_id is not None})
        stored = self._products.find_images({part.image_id for part in parts if part.image_id is not None})

        def resolve(part: Part) -> ResolvedPart | PartError:
            if part.image is not None:
                return next(images)
            if part.text is not None:
                return next(texts)
            if part.vector is not None:
                return _normalize_vector(part.vector, dim)
            return products[part.product_id] if part.product_id is not None else stored[part.image_id or ""]

        return [resolve(part) for part in parts]

    def _encode_images(self, contents: Sequence[bytes]) -> Iterator[ResolvedPart | PartError]:
        for start in range(0, len(contents), _BATCH):
            encoder = self._load_encoder()
            with self._decode_slots:
                # Waiting for a slot may have taken all the time there was.
                self._check_deadline()
                with self._timer("decode"):
                    prepared = [self._prepare(encoder, content) for content in contents[start : start + _BATCH]]
            readable = [pixels for pixels in prepared if not isinstance(pixels, BadImage)]
            self._check_deadline()
            with self._timer("encode"):
                vectors = iter(encoder.encode_images(np.stack(readable)) if readable else ())
            yield from (pixels if isinstance(pixels, BadImage) else _check_finite(next(vectors)) for pixels in prepared)

    def _prepare(self, encoder: Encoder, content: bytes) -> Pixels | BadImage:
        try:
            return Preparation(encoder.edge, encoder.prepare)(content, self._pixel_budget)
        except BadImage as error:
            return error

    def _encode_texts(self, texts: Sequence[str]) -> Iterator[ResolvedPart | PartError]:
        if not texts:
            return
        encoder = self._load_encoder()
        if not isinstance(encoder, TextEncoder):
            error = BadQuery(
                f"{encoder.fingerprint.encoder!r} encodes images but no text. {TEXT_ENCODER!r} encodes both: "
                f"lookalike ingest SOURCE --encoder {TEXT_ENCODER} --collection NEW_NAME",
                public="this collection's encoder encodes images but no text; search by an image or a product",
            )
            yield from (error for _ in texts)
            return
        for text in texts:
            yield self._encode_text(encoder, text)

    def _encode_text(self, encoder: TextEncoder, text: str) -> ResolvedPart | PartError:
        self._check_deadline()
        try:
            with self._timer("encode"):
                return _check_finite(encoder.encode_texts([text])[0])
        except BadQuery as error:
            return error


def _normalize_vector(values: Sequence[float], dim: int) -> ResolvedPart | PartError:
    if len(values) != dim:
        return BadQuery(f"the vector has {len(values)} numbers; this collection's have {dim}")
    vector = np.asarray(values, dtype=np.float64)
    # Divided by the largest number first: the squares of very large floats are infinite, those of very small ones zero.
    return ResolvedPart(mean_vector([vector / np.abs(vector).max()]))


def _check_finite(vector: Vector) -> ResolvedPart | PartError:
    if np.isfinite(vector).all() and vector.any():
        return ResolvedPart(vector)
    return BadImage(
        "the encoder returned zeros or no finite numbers; if it runs in half precision, try --dtype float32",
        public="the encoder can make nothing of it; send another image or text",
    )
