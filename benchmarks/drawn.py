"""Drawn vectors as products have them, in a collection, and what an exact search finds among them."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from lookalike.schema.collection import Fingerprint
from lookalike.schema.milvus.store import Store
from lookalike.schema.product import FileState, ImageRow, ProductImage

DIM = 512
Vectors = npt.NDArray[np.float32]


class Catalogue:
    """Images, two a product on average: `vectors` (n, dim), `products` (n names), `chance` (n numbers below 1)."""

    def __init__(self, rows: int) -> None:
        random = np.random.default_rng(7)
        count = rows // 2
        # Kinds of goods, products of a kind, and photos of one product near each other.
        kinds = random.normal(size=(rows // 100, DIM)).astype(np.float32)
        centres = kinds[random.integers(0, len(kinds), count)]
        centres += 0.7 * random.standard_normal((count, DIM), dtype=np.float32)
        owners = np.concatenate([np.arange(count), random.integers(0, count, rows - count)])
        vectors = centres[owners]
        vectors += 0.4 * random.standard_normal((rows, DIM), dtype=np.float32)
        self.vectors = unit(vectors)
        self.products = [f"p{owner}" for owner in owners]
        # By product: a shop filters products, not photos.
        self.chance = random.random(count)[owners]

    def near(self, queries: int) -> Vectors:
        """Vectors to ask with, near those of some images: shape (queries, dim)."""
        random = np.random.default_rng(8)
        chosen = self.vectors[random.choice(len(self.vectors), queries, replace=False)]
        return unit(chosen + 0.02 * random.normal(size=chosen.shape))

    def fill(self, uri: str) -> Store:
        """Open a collection with these rows, filling it when it is new."""
        fingerprint = Fingerprint("bench", "none", DIM, "none", "none")
        store = Store.create(uri, fingerprint, collection=f"drawn_{len(self.vectors)}")
        if store.count() != len(self.vectors):
            store.upsert(self.rows())
            store.flush()
        return store

    def products_near(self, asked: Vectors, limit: int, inside: npt.NDArray[np.bool_]) -> set[str]:
        """The nearest products, exactly, among the rows that are inside."""
        scores = np.where(inside, self.vectors @ asked, -2)
        best: dict[str, float] = {}
        for n in np.argsort(-scores)[: 20 * limit]:
            if scores[n] > -2 and len(best) < limit:
                best.setdefault(self.products[n], scores[n])
        return set(best)

    def rows(self) -> Iterator[ImageRow]:
        """The rows, one after the other."""
        for n, product in enumerate(self.products):
            image = ProductImage.named("bench", product, str(n), f"{n}.jpg", {"chance": float(self.chance[n])})
            yield ImageRow.of(image, FileState(str(n), 1, 1), self.vectors[n])


def unit(vectors: npt.NDArray[np.floating]) -> Vectors:
    """Bring vectors, shape (n, dim), to unit length."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / lengths, dtype=np.float32)
