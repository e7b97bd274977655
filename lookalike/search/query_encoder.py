"""From parts of questions to unit vectors: images and words by the encoder, products and keys by the collection."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

from lookalike.encode.decode import load_rgb, open_image, reduce_on_decode
from lookalike.encode.encoder import Encoder, TextEncoder
from lookalike.encode.pixel_budget import PixelBudget
from lookalike.encode.preprocess import Pixels
from lookalike.encode.registry import TEXT_ENCODER
from lookalike.schema.errors import BadFilter, BadImage, BadQuery, UnknownProduct
from lookalike.schema.filters.expression import column_in
from lookalike.schema.milvus.reader import Row
from lookalike.schema.milvus.store import Store
from lookalike.schema.product import Vector, Vectors
from lookalike.search.query import Part
from lookalike.search.ranking import mean
from lookalike.search.ttl_cache import TtlCache

_IMAGES_OF_A_PRODUCT = 1_000
_REMEMBERED = 10_000
_TOGETHER = 32
"""Images that are decoded and encoded together."""

PartError = BadImage | BadQuery | BadFilter | UnknownProduct
"""What is wrong with one question, and says nothing of others."""

StageTimer = Callable[[str], AbstractContextManager[object]]
"""What is entered around a stage, by its name."""


@dataclass(frozen=True, slots=True)
class ResolvedPart:
    """What a part stands for: a unit vector, shape (dim,), the products that it names, and how many images they have.

    One image, where that is not known.
    """

    vector: Vector
    named: frozenset[str] = frozenset()
    images: int = 1


class QueryEncoder:
    """Turns parts of questions into vectors; safe to use from several threads."""

    def __init__(
        self, store: Store, encoder: Callable[[], Encoder], budget: PixelBudget, timed: StageTimer, remember: float
    ) -> None:
        self._store = store
        self._encoder = encoder
        self._budget = budget
        self._timed = timed
        self.recent: TtlCache[ResolvedPart] = TtlCache(remember, _REMEMBERED)
        """Products that were asked with lately."""

    def read(self, parts: Sequence[Part]) -> list[ResolvedPart | PartError]:
        """Find what parts stand for, those of a kind together; one that cannot be read gets its error instead.

        Raises StoreUnavailable and what loading the encoder raises.
        """
        images = iter(self._images([part.image for part in parts if part.image is not None]))
        texts = iter(self._texts([part.text for part in parts if part.text is not None]))
        products = self._products({part.product_id for part in parts if part.product_id is not None})
        stored = self._stored({part.image_id for part in parts if part.image_id is not None})

        def meaning(part: Part) -> ResolvedPart | PartError:
            if part.image is not None:
                return next(images)
            if part.text is not None:
                return next(texts)
            if part.vector is not None:
                return self._given(part.vector)
            return products[part.product_id] if part.product_id is not None else stored[part.image_id or ""]

        return [meaning(part) for part in parts]

    def _images(self, contents: Sequence[bytes]) -> Iterator[ResolvedPart | PartError]:
        for start in range(0, len(contents), _TOGETHER):
            encoder = self._encoder()
            with self._timed("decode"):
                prepared = [self._prepared(encoder, content) for content in contents[start : start + _TOGETHER]]
            good = [pixels for pixels in prepared if not isinstance(pixels, BadImage)]
            with self._timed("encode"):
                vectors = iter(encoder.encode_images(np.stack(good)) if good else ())
            yield from (pixels if isinstance(pixels, BadImage) else _finite(next(vectors)) for pixels in prepared)

    def _prepared(self, encoder: Encoder, content: bytes) -> Pixels | BadImage:
        try:
            image = reduce_on_decode(open_image(content, self._budget.max_pixels), encoder.edge)
            with self._budget.reserve(image.width * image.height):
                return encoder.prepare(load_rgb(image))
        except BadImage as error:
            return error

    def _texts(self, texts: Sequence[str]) -> Iterator[ResolvedPart | PartError]:
        if not texts:
            return
        encoder = self._encoder()
        if not isinstance(encoder, TextEncoder):
            without = BadQuery(
                f"{encoder.fingerprint.encoder!r} knows images but no words. An encoder with words is "
                f"{TEXT_ENCODER!r}: lookalike ingest SOURCE --encoder {TEXT_ENCODER} --collection NEW_NAME"
            )
            yield from (without for _ in texts)
            return
        for text in texts:
            yield self._text(encoder, text)

    def _text(self, encoder: TextEncoder, text: str) -> ResolvedPart | PartError:
        try:
            with self._timed("encode"):
                vectors: Vectors = encoder.encode_texts([text])
        except BadQuery as error:
            return error
        return _finite(vectors[0])

    def _given(self, values: Sequence[float]) -> ResolvedPart | PartError:
        dim = self._store.fingerprint.dim
        if len(values) != dim:
            return BadQuery(f"the vector has {len(values)} numbers; this collection's have {dim}")
        vector = np.asarray(values, dtype=np.float64)
        # By the largest first: squares of the largest floats are infinite, of the smallest zero.
        return ResolvedPart(mean([vector / np.abs(vector).max()]))

    def _products(self, product_ids: set[str]) -> Mapping[str, ResolvedPart | PartError]:
        found = {product_id: self.recent.get(product_id) for product_id in product_ids}
        known: dict[str, ResolvedPart | PartError] = {
            name: meaning for name, meaning in found.items() if meaning is not None
        }
        return {**known, **self._looked_up(product_ids - known.keys())}

    def _looked_up(self, product_ids: set[str]) -> Mapping[str, ResolvedPart | PartError]:
        if not product_ids:
            return {}
        forgotten = self.recent.forgotten
        with self._timed("lookup"):
            rows = self._store.fetch(
                where=column_in("product_id", sorted(product_ids)),
                fields=["product_id", "embedding"],
                limit=_IMAGES_OF_A_PRODUCT * len(product_ids),
            )
        # In no order as they come: a sum of floats depends on it.
        images: dict[str, list[Row]] = {product_id: [] for product_id in product_ids}
        for row in sorted(rows, key=lambda row: str(row["image_id"])):
            images[row["product_id"]].append(row)
        found = {product_id: self._product(product_id, rows) for product_id, rows in images.items()}
        for product_id, meaning in found.items():
            if isinstance(meaning, ResolvedPart):
                self.recent.put(product_id, meaning, forgotten)
        return found

    def _product(self, product_id: str, rows: list[Row]) -> ResolvedPart | PartError:
        if not rows:
            return UnknownProduct(f"no product {product_id!r} in {self._store.name!r}; ids are spelt as in the source")
        return ResolvedPart(mean(_vectors(rows)), frozenset({product_id}), len(rows))

    def _stored(self, image_ids: set[str]) -> Mapping[str, ResolvedPart | PartError]:
        found: dict[str, ResolvedPart | PartError] = {
            image_id: UnknownProduct(f"no image {image_id!r} in {self._store.name!r}") for image_id in image_ids
        }
        if image_ids:
            with self._timed("lookup"):
                for row in self._store.get(sorted(image_ids), ["embedding", "product_id"]):
                    found[row["image_id"]] = ResolvedPart(mean(_vectors([row])), frozenset({row["product_id"]}))
        return found


def _finite(vector: Vector) -> ResolvedPart | PartError:
    if np.isfinite(vector).all() and vector.any():
        return ResolvedPart(vector)
    return BadImage("the encoder gave no vector for it that points anywhere; in half precision, try --dtype float32")


def _vectors(rows: Iterable[Row]) -> Iterator[Vector]:
    return (np.asarray(row["embedding"], dtype=np.float32) for row in rows)
