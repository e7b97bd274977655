"""How often a photo finds its product, and the recall of the search compared with exact search.

    python benchmarks/recall.py PHOTOS QUERIES [--layout '{category}/{product_id}/{image}'] [--encoder NAME] [--uri URI]

Ingests PHOTOS into a new collection, and searches with each image under QUERIES; the layout gives the correct product.
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np

# Import from this checkout; this folder itself holds an `ingest.py` and a `search.py`.
sys.path[0] = str(Path(__file__).parents[1])

from lookalike.encode.backends.device import parallel_batches_on  # noqa: E402  the path comes first
from lookalike.encode.decode import decode  # noqa: E402
from lookalike.encode.encoder import Encoder  # noqa: E402
from lookalike.encode.engine import Engine, LazyEngine  # noqa: E402
from lookalike.encode.process_tuning import count_cores  # noqa: E402
from lookalike.encode.registry import load_encoder  # noqa: E402
from lookalike.ingest.job import ingest_images  # noqa: E402
from lookalike.ingest.pipeline.existing_rows import RowScope  # noqa: E402
from lookalike.ingest.pipeline.limits import PipelineLimits  # noqa: E402
from lookalike.ingest.pipeline.stages import PipelineContext  # noqa: E402
from lookalike.ingest.reports.report import Report  # noqa: E402
from lookalike.ingest.sources.folder import FolderSource  # noqa: E402
from lookalike.ingest.sources.layout import Layout  # noqa: E402
from lookalike.schema.milvus.store import Store  # noqa: E402
from lookalike.schema.product import ProductImage  # noqa: E402
from lookalike.search.finder import Finder  # noqa: E402
from lookalike.search.query import Query  # noqa: E402

LIMIT = 10


class Ranking(NamedTuple):
    """The products found for one query: by lookalike, in which time, and by exact search."""

    found: list[str]
    milliseconds: float
    exact: list[str]


@click.command()
@click.argument("photos", type=click.Path(path_type=Path))
@click.argument("queries", type=click.Path(path_type=Path))
@click.option("--layout", default="{category}/{product_id}/{image}", show_default=True)
@click.option("--encoder", "name", default="efficientnet-lite0", show_default=True)
@click.option("--uri", help="A Milvus server.  [default: Milvus Lite in a temporary folder]")
def main(photos: Path, queries: Path, layout: str, name: str, uri: str | None) -> None:
    """Print R@1 and R@5 by product of lookalike and of exact search in numpy, and recall@10 against exact search."""
    encoder = load_encoder(name)
    images = [item for item in FolderSource(queries, Layout(layout)).images() if isinstance(item, ProductImage)]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        collection = f"recall_{int(time.time())}"
        with Store.create(uri or f"{scratch}/recall.db", encoder.fingerprint, collection=collection) as store:
            _ingest(FolderSource(photos, Layout(layout)), encoder, store)
            rankings = _search(images, encoder, store)
    expected = [image.product_id for image in images]
    _print_recall("lookalike", expected, [ranking.found for ranking in rankings])
    _print_recall("exact numpy", expected, [ranking.exact for ranking in rankings])
    recall = np.mean([len(set(found) & set(exact)) / len(exact) for found, _, exact in rankings])
    median = np.median([ranking.milliseconds for ranking in rankings])
    print(f"recall@{LIMIT} against exact {recall:.4f}; {len(images)} queries, median {median:.1f} ms")


def _ingest(source: FolderSource, encoder: Encoder, store: Store) -> None:
    import torch

    started = time.perf_counter()
    engine = LazyEngine(
        lambda: Engine(encoder, batch_size=16, parallel_batches=parallel_batches_on(torch.device("cpu")))
    )
    limits = PipelineLimits(workers=count_cores())
    with Report() as report:
        ingest_images(source.images(), RowScope(source.name), store, report, PipelineContext(engine, limits))
    print(f"ingest: {report.summary()}, {time.perf_counter() - started:.1f} s")


def _search(images: Sequence[ProductImage], encoder: Encoder, store: Store) -> list[Ranking]:
    finder = Finder(store, lambda: encoder)
    rows = list(store.rows(fields=["product_id", "embedding"]))
    vectors = np.array([row["embedding"] for row in rows], dtype=np.float32)
    products = np.array([row["product_id"] for row in rows])
    rankings = []
    for image in images:
        content = Path(image.image).read_bytes()
        result = finder.find(Query(image=content, limit=LIMIT))
        scores = vectors @ encoder.encode_images(encoder.prepare(decode(content))[None])[0]
        exact = list(dict.fromkeys(products[np.argsort(-scores)]))[:LIMIT]
        rankings.append(Ranking([hit.product_id for hit in result.hits], result.took_ms, exact))
    return rankings


def _print_recall(label: str, expected: Sequence[str], ranked: Sequence[Sequence[str]]) -> None:
    """Print the share of queries whose product is the first one, and among the first five."""
    first, five = (
        np.mean([product in best[:k] for product, best in zip(expected, ranked, strict=True)]) for k in (1, 5)
    )
    print(f"{label:12} R@1 {first:.3f}  R@5 {five:.3f}")


if __name__ == "__main__":
    main()
