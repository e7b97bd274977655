"""Write the sample catalogue to a folder: photos, queries and a manifest."""

import csv
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lookalike.ingest.sample.photos import photo
from lookalike.ingest.sample.product import Product, products, query_products
from lookalike.schema.errors import BadSettings

_QUERY_VIEW = 1_000
"""A view that no photo of the catalogue has."""

_MTIME = 1_577_880_000
"""The mtime of every photo, in seconds since 1970: a redrawn photo is unchanged, and ingest trusts an old mtime."""


def draw_catalogue(folder: Path, photos_per_product: int = 3) -> int:
    """Write `photos/{category}/{product_id}/{n}.jpg`, new photos of some products to `queries/`, and `products.csv`.

    The manifest lists the photos with a title and a price. Returns the number of catalogue photos. Raises BadSettings
    when it cannot write.
    """
    photos = [
        (product, view, folder / _photo_path(product, view))
        for product in products()
        for view in range(photos_per_product)
    ]
    queries = [(product, _QUERY_VIEW, folder / "queries" / f"{product.product_id}.jpg") for product in query_products()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_manifest(folder / "products.csv", photos_per_product)
        # Pillow releases the lock of the interpreter while it draws.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in pool.map(_write_photo, *zip(*photos, *queries, strict=True)):
                pass
    except OSError as error:
        raise BadSettings(f"the sample catalogue cannot be written to {str(folder)!r}: {error.strerror}") from error
    return len(photos)


def _photo_path(product: Product, view: int) -> str:
    return f"photos/{product.category}/{product.product_id}/{view + 1}.jpg"


def _write_photo(product: Product, view: int, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    photo(product, view).save(file, quality=90)
    os.utime(file, (_MTIME, _MTIME))


def _write_manifest(file: Path, photos_per_product: int) -> None:
    with file.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(["product_id", "image", "title", "price"])
        for product in products():
            for view in range(photos_per_product):
                table.writerow([product.product_id, _photo_path(product, view), product.title, product.price])
