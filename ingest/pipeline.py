"""The whole way of a catalogue into a collection: source → load → encode → upsert → report."""

from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np

from encode.decode import MAX_PIXELS
from encode.encoder import Encoder
from ingest.load import LoadedImage, PixelBudget, load
from ingest.report import Rejection, Report
from ingest.stages import in_background, in_parallel
from schema.product import ImageRow, ProductImage
from schema.store import Store


@dataclass(frozen=True, slots=True)
class Pace:
    """How much is under way at once: pictures in a batch, threads that load, batches in the network."""

    batch_size: int = 32
    workers: int = 2
    lanes: int = 1
    max_pixels: int = MAX_PIXELS


def ingest(
    pictures: Iterable[ProductImage | Rejection], encoder: Encoder, store: Store, report: Report, pace: Pace
) -> None:
    """Bring every picture into the collection, or into the report with the reason why not.

    Reading and decoding (on `pace.workers` threads), the network and Milvus work at the same time; what waits
    between them is bounded, so that memory does not grow with the catalogue. Rows are keyed: a second run over the
    same pictures changes nothing. When it is interrupted, all that `report` counts as stored is kept.
    """
    report.start()
    loading = partial(load, encoder, PixelBudget(pace.max_pixels))
    loaded = in_parallel(loading, pictures, workers=pace.workers, ahead=2 * pace.batch_size)
    accepted = _accepted(loaded, report)
    batches = in_background(_batches(accepted, pace.batch_size), ahead=pace.lanes)
    encoded = in_parallel(partial(_encode, encoder, report), batches, workers=pace.lanes, ahead=2 * pace.lanes)
    with closing(batches), closing(encoded):
        for rows in encoded:
            store.upsert(rows)
            report.store(len(rows))
    store.flush()


def _accepted(loaded: Generator[LoadedImage | Rejection], report: Report) -> Generator[LoadedImage]:
    with closing(loaded):
        for item in loaded:
            if isinstance(item, Rejection):
                report.reject(item)
            else:
                yield item


def _batches(items: Generator[LoadedImage], size: int) -> Generator[list[LoadedImage]]:
    with closing(items):
        while batch := list(islice(items, size)):
            yield batch


def _encode(encoder: Encoder, report: Report, batch: list[LoadedImage]) -> list[ImageRow]:
    """Run the network over a batch; a picture whose vector is not finite (half precision overflows) is rejected."""
    vectors = encoder.encode_images(np.stack([item.pixels for item in batch]))
    rows = []
    for item, vector in zip(batch, vectors, strict=True):
        if np.isfinite(vector).all():
            rows.append(ImageRow.of(item.picture, item.file, vector))
        else:
            report.reject(Rejection(item.picture.image, "the encoder gave no finite vector; try --dtype float32"))
    return rows
