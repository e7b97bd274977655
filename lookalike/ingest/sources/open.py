"""Open a source by its name: `open_source` chooses the class. Add a new kind of source here."""

from pathlib import Path

from lookalike.ingest.reports.report import Rejection
from lookalike.ingest.sources.folder import FolderSource
from lookalike.ingest.sources.layout import FolderRule, Layout, PathFields
from lookalike.ingest.sources.manifest import ManifestSource, is_manifest
from lookalike.ingest.sources.source import ImageSource
from lookalike.schema.errors import BadSource
from lookalike.schema.metadata import ColumnTypes
from lookalike.schema.numbers import PLAIN, ValueFormat


def open_source(
    path: str, layout: str | None, name: str | None, fields: ColumnTypes, values: ValueFormat = PLAIN
) -> ImageSource:
    """Open a source; no image is read. Raises BadSource, and BadSettings for an invalid layout or name."""
    if is_manifest(path):
        return ManifestSource(path, fields, name, values)
    rule = Layout(layout, fields, values) if layout else FolderRule()
    return FolderSource(Path(path), rule, name, fields, values)


def find_first_product(folder: FolderSource) -> tuple[str, PathFields]:
    """Return the first image whose path the layout can read, and its fields. Raises BadSource when there is none."""
    example = folder.find_example()
    if example is not None:
        return example
    first = next(folder.images(), None)
    if isinstance(first, Rejection):
        raise BadSource(
            f"SOURCE {str(folder.root)!r} holds no image that can be used; "
            f"the first one is rejected: {first.image!a}: {first.reason}"
        )
    raise BadSource(f"SOURCE {str(folder.root)!r} holds no images; is it the right folder, and mounted?")
