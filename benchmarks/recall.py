"""How often a photo finds its product, and whether the search loses anything against exact search.

    python benchmarks/recall.py PHOTOS QUERIES [--layout '{category}/{product_id}/{image}'] [--encoder NAME] [--uri URI]

PHOTOS is ingested into a fresh collection, every image under QUERIES is asked; the layout names the right answer.
"""

import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np

# This folder's ingest.py would hide the package `ingest`.
sys.path[0] = str(Path(__file__).parents[1])


@click.command()
@click.argument("photos", type=click.Path(path_type=Path))
@click.argument("queries", type=click.Path(path_type=Path))
@click.option("--layout", default="{category}/{product_id}/{image}", show_default=True)
@click.option("--encoder", "name", default="efficientnet-lite0", show_default=True)
@click.option("--uri", help="A Milvus server; without it Milvus Lite in a temporary folder.")
def main(photos: Path, queries: Path, layout: str, name: str, uri: str | None) -> None:
    """Print R@1 and R@5 by product, by lookalike and by exact numpy search, and recall@10 against exact."""
    import torch

    from lookalike.encode.backends.device import parallel_batches_on
    from lookalike.encode.decode import decode
    from lookalike.encode.engine import Engine, LazyEngine
    from lookalike.encode.process_tuning import count_cores
    from lookalike.encode.registry import load_encoder
    from lookalike.ingest.job import ingest_images
    from lookalike.ingest.pipeline.existing_rows import RowScope
    from lookalike.ingest.pipeline.limits import PipelineLimits
    from lookalike.ingest.pipeline.stages import PipelineContext
    from lookalike.ingest.reports.report import Report
    from lookalike.ingest.sources.folder import FolderSource
    from lookalike.ingest.sources.layout import Layout
    from lookalike.schema.milvus.store import Store
    from lookalike.schema.product import ProductImage
    from lookalike.search.finder import Finder
    from lookalike.search.query import Query

    encoder = load_encoder(name)
    engine = LazyEngine(
        lambda: Engine(encoder, batch_size=16, parallel_batches=parallel_batches_on(torch.device("cpu")))
    )
    asked = [item for item in FolderSource(queries, Layout(layout)).images() if isinstance(item, ProductImage)]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        started = time.perf_counter()
        collection = f"recall_{int(time.time())}"
        with Store.create(uri or f"{scratch}/recall.db", encoder.fingerprint, collection=collection) as store:
            with Report() as report:
                source = FolderSource(photos, Layout(layout))
                context = PipelineContext(engine, PipelineLimits(workers=count_cores()))
                ingest_images(source.images(), RowScope(source.name), store, report, context)
            print(f"ingest: {report.summary()}, {time.perf_counter() - started:.1f} s wall")
            finder = Finder(store, lambda: encoder)
            rows = list(store.rows(fields=["product_id", "embedding"]))
            vectors = np.array([row["embedding"] for row in rows], dtype=np.float32)
            products = np.array([row["product_id"] for row in rows])
            found, exact, same, took = [], [], [], []
            for item in asked:
                answer = finder.find(Query(image=Path(item.image).read_bytes(), limit=10))
                pixels = encoder.prepare(decode(Path(item.image).read_bytes()))
                scores = vectors @ encoder.encode_images(pixels[None])[0]
                best = list(dict.fromkeys(products[np.argsort(-scores)]))[:10]
                found.append([hit.product_id for hit in answer.hits])
                exact.append(best)
                same.append(len(set(found[-1]) & set(best)) / len(best))
                took.append(answer.took_ms)
    truth = [item.product_id for item in asked]
    for label, answers in (("lookalike", found), ("exact numpy", exact)):
        at = {k: np.mean([t in a[:k] for t, a in zip(truth, answers, strict=True)]) for k in (1, 5)}
        print(f"{label:12} R@1 {at[1]:.3f}  R@5 {at[5]:.3f}")
    print(f"recall@10 against exact {np.mean(same):.4f}; {len(asked)} queries, median {np.median(took):.1f} ms")


if __name__ == "__main__":
    main()
