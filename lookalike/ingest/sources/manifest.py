"""Manifests: a catalogue as a table, in CSV, JSON lines or Parquet, streamed row by row."""

import json
import os
import reprlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from lookalike.ingest.reports.report import Rejection
from lookalike.ingest.sources.files import is_remote
from lookalike.ingest.sources.metadata import ManifestRow, read_metadata, text_of
from lookalike.ingest.sources.tables import READERS, STANDARD_INPUT, BrokenRow, suffix
from lookalike.schema.collection import describe_misfit
from lookalike.schema.errors import BadSettings, BadSource
from lookalike.schema.metadata import RESERVED_NAMES, ColumnTypes
from lookalike.schema.product import ProductImage


class ManifestSource:
    """The images that a manifest names, in its order.

    A row has `product_id` and `image`: a path relative to the manifest, a full path or a URI, or a list of them.
    Every other column is metadata. `fields` declares types; CSV columns without are numbers or booleans where all of
    their values are. `name` says whose rows they are; by default the manifest's own path.
    """

    description = "a row is an image of its product_id, or several; every other column is metadata"

    def __init__(self, path: str, fields: ColumnTypes, name: str | None = None) -> None:
        self.path = path
        self.piped = path == STANDARD_INPUT
        if not self.piped and not Path(path).is_file():
            raise BadSource(f"SOURCE {path!r} cannot be read: there is no such file")
        # Not resolved: behind a link such as `current` there may be another folder tomorrow.
        self._folder = str(Path.cwd() if self.piped else Path(path).absolute().parent)
        self.name = name if name is not None else ("standard input" if self.piped else str(Path(path).resolve()))
        problem = describe_misfit({"source": self.name}, {})
        if problem:
            raise BadSettings(f"--source-name: {problem}")
        taken = set(fields) & RESERVED_NAMES
        if taken:
            raise BadSettings(f"--field {', '.join(sorted(taken))}: a product's id and image are always text")
        self._fields = fields

    def images(self) -> Iterator[ProductImage | Rejection]:
        """Name every image, or say by its row why one cannot be used; nothing but the manifest is opened."""
        with _broken_is_bad(self.path):
            place = ""
            for place, row in READERS[suffix(self.path)](self.path, self._fields):
                yield from self._images(place, row)
            if self.piped and not place:
                raise BadSource("SOURCE is standard input, and nothing came from there")

    def count(self) -> int | None:
        """Count what `images` would give; None for what can be read only once."""
        return None if self.piped else sum(1 for _ in self.images())

    def _images(self, place: str, row: ManifestRow | BrokenRow) -> Iterator[ProductImage | Rejection]:
        if isinstance(row, BrokenRow):
            yield Rejection(place, row.reason, incomplete=True)
            return
        product_id, references = text_of(row.get("product_id")), _references(row.get("image"))
        if not product_id:
            told = reprlib.repr(row.get("product_id"))
            yield Rejection(place, f"there is no product_id that can be used: {told}", incomplete=True)
        elif not references:
            yield Rejection(place, f"product {product_id!r} has no image")
        for reference in references if product_id else []:
            try:
                yield self._image(place, product_id, text_of(reference), row)
            except ValueError as error:
                yield Rejection(place, f"image {reprlib.repr(reference)}: {error}", incomplete=True)

    def _image(self, place: str, product_id: str, reference: str, row: ManifestRow) -> ProductImage | Rejection:
        if not reference:
            raise ValueError("it is neither a path nor a URI")
        where = self._where(reference)
        image = ProductImage.named(self.name, product_id, reference, where, {})
        try:
            metadata = read_metadata(row, self._fields)
        except ValueError as error:
            return Rejection(f"{place}: {reference}", str(error), image.image_id)
        return ProductImage(image.image_id, self.name, product_id, where, metadata)

    def _where(self, reference: str) -> str:
        if reference.startswith("file://"):
            return unquote(urlsplit(reference).path)
        if is_remote(reference):
            return reference
        return os.path.normpath(os.path.join(self._folder, reference))  # noqa: PTH118  text in, text out


def is_manifest(path: str) -> bool:
    """Tell a manifest from a folder by its name."""
    return path == STANDARD_INPUT or (suffix(path) in READERS and not Path(path).is_dir())


def _references(value: Any) -> list[Any]:
    """An image, a list of them, or a list as the cell of a CSV file holds it: `["front.jpg", "back.jpg"]`."""
    if isinstance(value, str) and value.startswith('["'):
        with suppress(ValueError, RecursionError):
            value = json.loads(value)
    return [part for part in (value if isinstance(value, list) else [value]) if part is not None and part != ""]


@contextmanager
def _broken_is_bad(path: str) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise BadSource(
            f"SOURCE {path!r} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error
    except OSError as error:
        raise BadSource(f"SOURCE {path!r} cannot be read: {error.strerror or error}") from error
