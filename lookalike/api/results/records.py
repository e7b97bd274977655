"""A product of the collection, and the collection in numbers."""

from collections.abc import Mapping
from dataclasses import dataclass

from lookalike.schema.errors import UnknownProduct
from lookalike.schema.filters.expression import column_in
from lookalike.schema.milvus.store import Store
from lookalike.schema.product import Metadata, ProductImage
from lookalike.search.explore.stats import count_collection

_FIELDS = ("source", "product_id", "image", "metadata")


@dataclass(frozen=True, slots=True)
class Product:
    """A product: its images in the order of their keys, and the metadata of the first one."""

    product_id: str
    metadata: Metadata
    images: tuple[ProductImage, ...]


@dataclass(frozen=True, slots=True)
class Info:
    """A collection in numbers; `columns` has for each metadata field how many images have it, by type."""

    collection: str
    uri: str
    version: str
    encoder: str
    dim: int
    images: int
    products: int
    columns: Mapping[str, Mapping[str, int]]
    sources: Mapping[str, int]


def read_product(store: Store, product_id: str) -> Product:
    """Read a product. Raises UnknownProduct."""
    rows = store.rows(where=column_in("product_id", [product_id]), fields=_FIELDS)
    images = sorted(
        (ProductImage(row["image_id"], *(row[name] for name in _FIELDS)) for row in rows),
        key=lambda image: image.image_id,
    )
    if not images:
        raise UnknownProduct(f"no product {product_id!r} in {store.name!r}; ids are spelt as in the source")
    return Product(product_id, images[0].metadata, tuple(images))


def read_info(store: Store) -> Info:
    """Count what a collection holds, reading every row but no embeddings."""
    counts = count_collection(store)
    return Info(
        collection=store.name,
        uri=store.uri,
        version=store.version,
        encoder=store.fingerprint.encoder,
        dim=store.fingerprint.dim,
        images=counts.images,
        products=counts.products,
        columns=counts.columns,
        sources=counts.sources,
    )
