"""A manifest: a catalogue as a table in CSV, JSON lines or Parquet, streamed row by row."""

import json
import os
import reprlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote, urlsplit

from lookalike.ingest.reports.report import Rejection
from lookalike.ingest.sources.column_map import NO_MAP, ColumnMap
from lookalike.ingest.sources.files import is_remote
from lookalike.ingest.sources.metadata import ManifestRow, read_metadata, to_text
from lookalike.ingest.sources.source import check_source_name
from lookalike.ingest.sources.tables import READERS, STANDARD_INPUT, BrokenRow, get_suffix
from lookalike.schema.errors import BadSettings, BadSource
from lookalike.schema.metadata import RESERVED_NAMES, ColumnTypes
from lookalike.schema.numbers import PLAIN, ValueFormat
from lookalike.schema.product import ProductImage


class ManifestSource:
    """The images that a manifest names, in its order.

    A row has `product_id` and `image`: a path relative to the manifest, a full path or a URI, or a list of them.
    Every other column is metadata. `fields` declares types; undeclared CSV columns are numbers or booleans where all
    of their values are. `values` says which texts are numbers, and which are no value; `columns` under which names
    columns are read. `name` is the source that owns the rows: by default the manifest's full path. Raises BadSource,
    and BadSettings for an invalid name or type.
    """

    description = "a row is an image of its product_id, or several; every other column is metadata"
    passed_over: Mapping[str, int] = MappingProxyType({})

    def __init__(
        self,
        path: str,
        fields: ColumnTypes,
        name: str | None = None,
        values: ValueFormat = PLAIN,
        columns: ColumnMap = NO_MAP,
    ) -> None:
        self._path = path
        self._columns = columns
        self._values = values
        self._is_stdin = path == STANDARD_INPUT
        if not self._is_stdin and not Path(path).is_file():
            raise BadSource(f"SOURCE {path!r} cannot be read: there is no such file")
        # Not resolved: a link such as `current` may lead to another folder tomorrow.
        self._folder = str(Path.cwd() if self._is_stdin else Path(path).absolute().parent)
        default = "standard input" if self._is_stdin else str(Path(path).resolve())
        self.name = check_source_name(default if name is None else name)
        reserved = set(fields) & RESERVED_NAMES
        if reserved:
            raise BadSettings(f"--field {', '.join(sorted(reserved))}: a product's id and image are always text")
        self._fields = fields

    def images(self) -> Iterator[ProductImage | Rejection]:
        """Yield every image, or by its row why one cannot be used; no image is opened. Raises BadSource."""
        with _raise_bad_source(self._path):
            location = ""
            read = READERS[get_suffix(self._path)]
            for location, row in read(self._path, self._fields, self._values, self._columns):
                yield from self._read_row(location, row)
            if self._is_stdin and not location:
                raise BadSource("SOURCE is standard input, which is empty; does the command before it write rows?")

    def count(self) -> int | None:
        """Count the items of `images`; None for standard input, which can be read only once."""
        return None if self._is_stdin else sum(1 for _ in self.images())

    def _read_row(self, location: str, row: ManifestRow | BrokenRow) -> Iterator[ProductImage | Rejection]:
        if isinstance(row, BrokenRow):
            yield Rejection(location, row.reason, incomplete=True)
            return
        product_id, references = to_text(row.get("product_id")), _list_references(row.get("image"))
        if not product_id:
            value = reprlib.repr(row.get("product_id"))
            yield Rejection(location, f"there is no product_id that can be used: {value}", incomplete=True)
        elif not references:
            yield Rejection(location, f"product {product_id!r} has no image")
        for reference in references if product_id else []:
            try:
                yield self._read_image(location, product_id, to_text(reference), row)
            except ValueError as error:
                yield Rejection(location, f"image {reprlib.repr(reference)}: {error}", incomplete=True)

    def _read_image(self, location: str, product_id: str, reference: str, row: ManifestRow) -> ProductImage | Rejection:
        if not reference:
            raise ValueError("it is neither a path nor a URI")
        path = self._resolve(reference)
        if "\0" in path:
            raise ValueError("it has a NUL character, which no path and no URI can have")
        image = ProductImage.named(self.name, product_id, reference, path, {})
        try:
            metadata = read_metadata(row, self._fields, self._values)
        except ValueError as error:
            return Rejection(f"{location}: {reference}", str(error), image.image_id)
        return ProductImage(image.image_id, self.name, product_id, path, metadata, location)

    def _resolve(self, reference: str) -> str:
        """Return the path or URI of an image. Raises ValueError for a malformed file:// URI."""
        if reference.startswith("file://"):
            return unquote(urlsplit(reference).path)
        if is_remote(reference):
            return reference
        return os.path.normpath(os.path.join(self._folder, reference))  # noqa: PTH118  faster than a Path


def is_manifest(path: str) -> bool:
    """Return whether a name is that of a manifest rather than a folder."""
    return path == STANDARD_INPUT or (get_suffix(path) in READERS and not Path(path).is_dir())


def _list_references(value: Any) -> list[Any]:
    """List the images of a row: one, a list of them, or a list in a CSV cell: `["front.jpg", "back.jpg"]`."""
    if isinstance(value, str) and value.startswith('["'):
        with suppress(ValueError, RecursionError):
            value = json.loads(value)
    values = value if isinstance(value, list) else [value]
    return [reference for reference in values if reference is not None and reference != ""]


@contextmanager
def _raise_bad_source(path: str) -> Iterator[None]:
    """Raise errors of reading the manifest as BadSource."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise BadSource(
            f"SOURCE {path!r} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error
    except OSError as error:
        raise BadSource(f"SOURCE {path!r} cannot be read: {error.strerror or error}") from error
