"""A synthetic catalogue: clustered vectors like those of products, in a collection, and exact search over them."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from lookalike.schema.collection import Fingerprint
from lookalike.schema.milvus.store import Store
from lookalike.schema.product import FileState, ImageRow, ProductImage

DIM = 512
Vectors = npt.NDArray[np.float32]


class Catalogue:
    """Images, on average two per product: `vectors` (n, dim), `products` (n ids), `chance` (n numbers below 1)."""

    def __init__(self, rows: int) -> None:
        random = np.random.default_rng(7)
        count = rows // 2
        # Clusters of categories, of products in a category, and of photos of a product.
        categories = random.normal(size=(rows // 100, DIM)).astype(np.float32)
        centres = categories[random.integers(0, len(categories), count)]
        centres += 0.7 * random.standard_normal((count, DIM), dtype=np.float32)
        owners = np.concatenate([np.arange(count), random.integers(0, count, rows - count)])
        vectors = centres[owners]
        vectors += 0.4 * random.standard_normal((rows, DIM), dtype=np.float32)
        self.vectors = normalize(vectors)
        self.products = [f"p{owner}" for owner in owners]
        # The same for all images of a product: a shop filters products, not photos.
        self.chance = random.random(count)[owners]

    def make_queries(self, count: int) -> Vectors:
        """Query vectors, near those of some images: shape (count, dim)."""
        random = np.random.default_rng(8)
        chosen = self.vectors[random.choice(len(self.vectors), count, replace=False)]
        return normalize(chosen + 0.02 * random.normal(size=chosen.shape))

    def fill(self, uri: str) -> Store:
        """Open a collection with these rows; fill it if it is new."""
        fingerprint = Fingerprint("bench", "none", DIM, "none", "none")
        store = Store.create(uri, fingerprint, collection=f"synthetic_{len(self.vectors)}")
        if store.count() != len(self.vectors):
            store.upsert(self.rows())
            store.flush()
        return store

    def nearest_products(self, query: Vectors, limit: int, mask: npt.NDArray[np.bool_]) -> set[str]:
        """The nearest products by exact search, among the rows that the mask selects."""
        scores = np.where(mask, self.vectors @ query, -2)
        best: dict[str, float] = {}
        for n in np.argsort(-scores)[: 20 * limit]:
            if scores[n] > -2 and len(best) < limit:
                best.setdefault(self.products[n], scores[n])
        return set(best)

    def rows(self) -> Iterator[ImageRow]:
        """Yield the rows."""
        for n, product in enumerate(self.products):
            image = ProductImage.named("bench", product, str(n), f"{n}.jpg", {"chance": float(self.chance[n])})
            yield ImageRow.of(image, FileState(str(n), 1, 1), self.vectors[n])


def normalize(vectors: npt.NDArray[np.floating]) -> Vectors:
    """Scale vectors, shape (n, dim), to unit length."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / lengths, dtype=np.float32)
