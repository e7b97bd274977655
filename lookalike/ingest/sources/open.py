"""Open a source by its name: `open_source` chooses the class. Add a new kind of source here."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePath

from lookalike.ingest.reports.report import Rejection
from lookalike.ingest.sources.column_map import NO_MAP, ColumnMap
from lookalike.ingest.sources.folder import FolderSource
from lookalike.ingest.sources.layout import FolderRule, Layout, PathFields
from lookalike.ingest.sources.layout_advice import check_layout
from lookalike.ingest.sources.manifest import ManifestSource, is_manifest
from lookalike.ingest.sources.other_files import UNSUPPORTED_SUFFIXES, list_image_suffixes, list_suffixes
from lookalike.ingest.sources.source import ImageSource
from lookalike.ingest.sources.tables import READERS
from lookalike.schema.errors import BadSettings, BadSource
from lookalike.schema.metadata import ColumnTypes
from lookalike.schema.numbers import PLAIN, ValueFormat

_SAMPLE_SIZE = 1_000
"""Images whose paths a layout is tried on."""


def open_source(
    path: str,
    layout: str | None,
    name: str | None,
    fields: ColumnTypes,
    values: ValueFormat = PLAIN,
    columns: ColumnMap = NO_MAP,
) -> ImageSource:
    """Open a source; no image is read. Raises BadSource, and BadSettings for an invalid layout or name."""
    if is_manifest(path):
        return ManifestSource(path, fields, name, values, columns)
    rule = Layout(layout, fields, values) if layout else FolderRule()
    folder = FolderSource(Path(path), rule, name, fields, values)
    if columns.columns:
        raise BadSettings(
            f"--column is for the columns of a manifest, but SOURCE {path!r} is a folder; leave it out. "
            "--layout describes the paths of a folder"
        )
    return folder


@dataclass(frozen=True, slots=True)
class FirstLook:
    """What the first images of a folder show."""

    path: str
    """The first image that can be read, relative to the folder."""

    fields: PathFields
    warnings: tuple[str, ...]


def look_at_folder(folder: FolderSource, layout: str | None) -> FirstLook:
    """Return the first image whose path the layout can read. Raises BadSource, with advice, when there is none."""
    paths = folder.list_paths(_SAMPLE_SIZE)
    fit = check_layout(layout, paths) if layout and paths else None
    example = folder.find_example()
    if example is not None:
        warnings = (fit.describe(),) if fit is not None and fit.is_poor else ()
        return FirstLook(*example, warnings)
    if fit is not None and len(fit.misfits) == len(paths):
        raise BadSource(f"SOURCE {str(folder.root)!r}: {fit.describe()}")
    raise BadSource(_describe_unusable(folder))


def _describe_unusable(folder: FolderSource) -> str:
    """Return why no image of a folder can be used, and which files are images."""
    problem, others = f"SOURCE {str(folder.root)!r} holds no image", Counter(folder.passed_over)
    for item in folder.images():
        suffix = PurePath(item.image).suffix.lower()
        if suffix not in UNSUPPORTED_SUFFIXES:
            reason = item.reason if isinstance(item, Rejection) else "it has just been added; run it again"
            return f"{problem} that can be used; the first one is rejected: {item.image!a}: {reason}"
        others[suffix] += 1
    if not others:
        return f"{problem}s and no other files; is it the right folder, and mounted?"
    manifest = "; to read a manifest, name it as SOURCE" if READERS.keys() & others.keys() else ""
    return (
        f"{problem}s that are read, but {list_suffixes(others)}; images end in {list_image_suffixes()}. "
        f"Save others as JPEG or PNG{manifest}"
    )
