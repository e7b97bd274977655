"""Products one at a time: read, put and removed over HTTP, written through the same path as ingest."""

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import structlog

from lookalike.encode.decode import open_picture, unpack
from lookalike.encode.engine import Engine, Model
from lookalike.encode.pixel_budget import PixelBudget
from lookalike.encode.process_tuning import cores
from lookalike.ingest.pipeline.diff import Change
from lookalike.ingest.pipeline.existing_rows import Inventory, Owned, StoredVector
from lookalike.ingest.pipeline.stages import Pace, Target, ingest
from lookalike.ingest.reports.report import Report
from lookalike.ingest.sources.metadata import metadata_of
from lookalike.schema.collection import misfit
from lookalike.schema.errors import BadImage, BadQuery, BadSettings, UnknownProduct
from lookalike.schema.filters.expression import any_of
from lookalike.schema.milvus.reader import Fields
from lookalike.schema.milvus.store import Store
from lookalike.schema.product import ProductImage
from lookalike.serve.api.redaction import source_name
from lookalike.serve.api.schemas import ProductOut, StoredPicture, Written, picture_url
from lookalike.serve.runtime.active_version import Version
from lookalike.serve.runtime.deadline import current
from lookalike.serve.runtime.thumbnails import name_of

SOURCE = "api"
"""Whose rows those are that were put over HTTP."""

_MOST_PICTURES = 1_000
_NOT_AN_END = "/similar"
_FIELDS = ("product_id", "source", "image", "metadata")

_log = structlog.get_logger("lookalike")


class Catalogue:
    """Writes products, one after the other; pictures that come with them are kept as files in `uploads`."""

    def __init__(self, uploads: Path, budget: PixelBudget) -> None:
        self._uploads = uploads.absolute()
        self._budget = budget
        self._writing = threading.Lock()

    def get(self, store: Store, product_id: str) -> ProductOut:
        """Tell a product's pictures and metadata. Raises UnknownProduct."""
        rows = _rows(store, product_id)
        pictures = [
            StoredPicture(
                image_id=row["image_id"],
                url=picture_url(row["image_id"]),
                source=source_name(row["source"]),
                metadata=row["metadata"],
            )
            for row in rows
        ]
        return ProductOut(product_id=product_id, metadata=rows[0]["metadata"], pictures=pictures)

    def put(
        self, version: Version, product_id: str, images: Sequence[bytes] | None, metadata: dict[str, Any]
    ) -> Written:
        """Make a product what is said: these pictures and no others, or those that it has, with this metadata.

        Raises BadImage and BadQuery, with nothing written; UnknownProduct when there are no pictures at all.
        """
        told = _checked(product_id, metadata)
        with self._turn():
            if images is None:
                written = self._tell(version.store, product_id, told)
            else:
                written = self._replace(version, product_id, images, told)
            version.finder.forget(product_id)
            version.store.require_live()
            return written

    def remove(self, version: Version, product_id: str) -> None:
        """Remove a product with its pictures. Raises UnknownProduct."""
        store = version.store
        with self._turn():
            rows = list(store.rows(where=any_of("product_id", [product_id]), fields=["image", "source"]))
            if not rows:
                raise _unknown(product_id)
            _delete(store, [row["image_id"] for row in rows])
            version.finder.forget(product_id)
            store.settle(len(rows))
            store.require_live()
            self._forget(rows)

    def _replace(self, version: Version, product_id: str, images: Sequence[bytes], metadata: dict[str, Any]) -> Written:
        store, report = version.store, Report()
        before = {row["image_id"]: row for row in _fetch(store, product_id)}
        files = [self._file(store.name, product_id, content, self._suffix(content)) for content in images]
        for file, content in zip(files, images, strict=True):
            _write(file, content)
        pictures = [ProductImage.named(SOURCE, product_id, file.name, str(file), metadata) for file in files]
        unique = {picture.image_id: picture for picture in pictures}
        model = Model(lambda: Engine(version.encoder, version.engine.batch_size, version.engine.lanes))
        owned = Owned(None, any_of("product_id", [product_id]))
        plan = ingest(unique.values(), owned, model, Target(store, report), Pace(cores(), self._budget.most))
        if report.first_rejections:
            self._undo(store, [picture for image_id, picture in unique.items() if image_id not in before])
            _log.error("a picture was rejected", reason=report.first_rejections[0].reason)
            raise BadImage("a picture could not be taken in, and none of them was; the service's log says why")
        gone = plan.removed()
        _delete(store, gone)
        self._forget([before[image_id] for image_id in gone if image_id in before])
        done = report.summary()
        return Written(
            product_id=product_id,
            new=done.new,
            changed=done.changed,
            metadata=done.metadata,
            unchanged=done.unchanged,
            removed=len(gone),
        )

    def _tell(self, store: Store, product_id: str, metadata: dict[str, Any]) -> Written:
        """Give the pictures that are there other metadata, without a look at their files."""
        inventory = Inventory(store, Owned(None, any_of("product_id", [product_id])))
        wanted = [
            StoredVector(
                ProductImage(row["image_id"], row["source"], product_id, row["image"], metadata),
                known.file,
                Change.METADATA,
                row["image_id"],
            )
            for row in _rows(store, product_id)
            if (known := inventory.known.get(row["image_id"])) is not None
        ]
        ready, _ = inventory.ready(wanted)
        store.upsert([item.row for item in ready])
        store.settle(len(ready))
        return Written(product_id=product_id, new=0, changed=0, metadata=len(ready), unchanged=0, removed=0)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait for other writes; a write that nobody waits for any more is not begun."""
        with self._writing:
            deadline = current()
            if deadline is not None:
                deadline.check()
            yield

    def _undo(self, store: Store, pictures: Sequence[ProductImage]) -> None:
        """Take back what is new."""
        _delete(store, [picture.image_id for picture in pictures])
        self._forget([{"source": picture.source, "image": picture.image} for picture in pictures])

    def _suffix(self, content: bytes) -> str:
        """The suffix of a picture that can be decoded. Raises BadImage."""
        picture = open_picture(content, self._budget.most)
        with self._budget.take(picture.width * picture.height):
            unpack(picture)
        return f".{(picture.format or 'picture').lower()}"

    def _file(self, collection: str, product_id: str, content: bytes, suffix: str) -> Path:
        # Folders and files are named by us: nothing of a request becomes part of a path.
        return self._uploads / collection / name_of(product_id.encode())[:16] / (name_of(content) + suffix)

    def _forget(self, rows: Sequence[Fields]) -> None:
        """Remove the files of rows that are gone, of those that were uploaded."""
        for row in rows:
            file = Path(row["image"])
            if row["source"] == SOURCE and file.is_relative_to(self._uploads):
                file.unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    file.parent.rmdir()


def _fetch(store: Store, product_id: str) -> list[Fields]:
    rows = store.fetch(where=any_of("product_id", [product_id]), fields=_FIELDS, limit=_MOST_PICTURES)
    return sorted(rows, key=lambda row: str(row["image_id"]))


def _rows(store: Store, product_id: str) -> list[Fields]:
    rows = _fetch(store, product_id)
    if not rows:
        raise _unknown(product_id)
    return rows


def _unknown(product_id: str) -> UnknownProduct:
    return UnknownProduct(f"no product {product_id!r}; put it with its images first")


def _delete(store: Store, image_ids: Sequence[str]) -> None:
    """Remove rows, and see them gone: a server acknowledges a delete before its searches know of it."""
    if image_ids:
        store.delete(image_ids)
        store.count(any_of("image_id", image_ids), consistency="Strong")


def _checked(product_id: str, metadata: dict[str, Any]) -> dict[str, Any]:
    """Return what is kept of metadata. Raises BadQuery for a product that could not be kept."""
    if product_id.endswith(_NOT_AN_END):
        raise BadQuery(f"a product id that ends in {_NOT_AN_END} could not be asked for; take another one")
    try:
        told = metadata_of(metadata, {})
    except ValueError as error:
        raise BadQuery(f"metadata: {error}") from None
    problem = misfit({"product_id": product_id}, told)
    if problem:
        raise BadQuery(problem)
    return told


def _write(file: Path, content: bytes) -> None:
    """Write a file as a whole or not at all; the same bytes are there already under that name."""
    if file.exists():
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        with part.open("wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        part.replace(file)
    except OSError as error:
        raise BadSettings(f"--uploads {str(file.parents[2])!r} cannot be written: {error.strerror}") from error
