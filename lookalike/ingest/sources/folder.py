"""A folder of images, searched recursively."""

import errno
import json
import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePath
from typing import Protocol

from lookalike.encode.image_limits import SUFFIXES
from lookalike.ingest.reports.report import Rejection
from lookalike.ingest.sources.files import read_file
from lookalike.ingest.sources.layout import PathFields
from lookalike.ingest.sources.metadata import ManifestRow, read_metadata
from lookalike.ingest.sources.other_files import UNSUPPORTED_SUFFIXES, describe_other_file
from lookalike.ingest.sources.source import check_source_name
from lookalike.schema.errors import BadImage, BadSource
from lookalike.schema.metadata import ColumnTypes
from lookalike.schema.numbers import PLAIN, ValueFormat
from lookalike.schema.product import ProductImage

_IGNORED_FOLDERS = frozenset({"__MACOSX", "@eaDir"})
_IGNORED_FILES = frozenset({"thumbs.db", "desktop.ini"})

Inode = tuple[int, int]
"""Device and inode number: the same for every path to a folder."""


class PathRule(Protocol):
    """Reads a product id and metadata from a path."""

    description: str

    def read_path(self, path: str) -> PathFields:
        """Read a path relative to the source. Raises ValueError with the reason when it does not fit the rule."""


class FolderSource:
    """The images in a folder and its subfolders, in the order of their names.

    A JSON file of the same name beside an image adds metadata to what `rule` reads from the path; `fields` declares
    types of its columns, and `values` says which texts are numbers or no value. `name` is the source that owns the
    rows: by default the folder's full path, so that the same folder is the same source from any working directory.
    Raises BadSource, and BadSettings for an invalid name.
    """

    def __init__(
        self,
        root: Path,
        rule: PathRule,
        name: str | None = None,
        fields: ColumnTypes | None = None,
        values: ValueFormat = PLAIN,
    ) -> None:
        _stat_folder(root)
        # Not resolved: a link such as `current` may lead to another folder tomorrow.
        self.root = root.absolute()
        self.name = check_source_name(str(root.resolve()) if name is None else name)
        self.description = rule.description
        self.passed_over: Mapping[str, int] = {}
        self._rule = rule
        self._fields = fields or {}
        self._values = values

    def images(self) -> Iterator[ProductImage | Rejection]:
        """Yield every image, or why it cannot be used; no image is opened. Raises BadSource."""
        others: Counter[str] = Counter()
        for item in self._walk(others):
            yield item if isinstance(item, Rejection) else self._read_product(item)
        self.passed_over = others

    def count(self) -> int:
        """Count the items of `images`."""
        return sum(1 for _ in self._walk(Counter()))

    def list_paths(self, limit: int) -> list[str]:
        """Return the paths of the first images, relative to the folder."""
        images = (item for item in self._walk(Counter()) if isinstance(item, str))
        return [self._relative_path(path) for path in islice(images, limit)]

    def find_example(self) -> tuple[str, PathFields] | None:
        """Return the first image that the rule can read, relative to the folder, and its fields."""
        for item in self.images():
            if isinstance(item, ProductImage):
                return self._relative_path(item.image), PathFields(item.product_id, dict(item.metadata))
        return None

    def _walk(self, others: Counter[str]) -> Iterator[str | Rejection]:
        """Yield every image; add all other files to `others`, by their suffix."""
        # Checked for every run of `--watch`: the folder may have gone.
        return _walk(str(self.root), _stat_folder(self.root), others)

    def _read_product(self, path: str) -> ProductImage | Rejection:
        relative = self._relative_path(path)
        try:
            fields = self._rule.read_path(relative)
        except ValueError as error:
            return Rejection(path, str(error))
        image = ProductImage.named(self.name, fields.product_id, relative, path, fields.metadata)
        try:
            row = _read_json_beside(path)
            added = read_metadata(row, self._fields, self._values) if row else {}
        except ValueError as error:
            return Rejection(path, f"the JSON file beside it: {error}", image.image_id)
        return replace(image, metadata={**fields.metadata, **added}) if added else image

    def _relative_path(self, path: str) -> str:
        """Return a path relative to the folder; by slicing, since there may be a million of them."""
        return path[len(str(self.root)) :].replace(os.sep, "/").lstrip("/")


def _read_json_beside(path: str) -> ManifestRow | None:
    """Read `front.json` beside `front.jpg`; None when there is none. Raises ValueError when it cannot be read."""
    json_path = os.path.splitext(path)[0] + ".json"  # noqa: PTH122  for speed, as above
    try:
        row = json.loads(read_file(json_path)[0].decode("utf-8-sig"))
    except OSError as error:
        # No file can have a name that is too long.
        if error.errno in (errno.ENOENT, errno.ENAMETOOLONG):
            return None
        raise ValueError(error.strerror) from error
    except BadImage as error:
        raise ValueError(str(error)) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(row, dict):
        raise ValueError("it is not a JSON object")
    return row


def _stat_folder(root: Path) -> Inode:
    try:
        status = root.stat()
    except OSError as error:
        raise BadSource(f"SOURCE {str(root)!r} cannot be read: {error.strerror}") from error
    if not stat.S_ISDIR(status.st_mode):
        raise BadSource(describe_other_file(str(root)))
    return _inode(status)


def _walk(root: str, inode: Inode, others: Counter[str]) -> Iterator[str | Rejection]:
    """Yield every image below a folder, in the order of names.

    A link to a folder is followed once. It is rejected when it leads back to a folder above it, or to where another
    link has led already: so the walk ends however folders are linked.
    """
    open_folders = [_OpenFolder(inode, _list_entries(root))]
    linked: set[Inode] = set()
    while open_folders:
        entry = next(open_folders[-1].entries, None)
        if entry is None:
            open_folders.pop()
        elif isinstance(entry, Rejection):
            yield entry
        elif not _is_folder(entry):
            yield from _check_file(entry, others)
        elif entry.name not in _IGNORED_FOLDERS and not _is_store(entry):
            try:
                inode, is_link = _inode(entry.stat()), entry.is_symlink()
            except OSError as error:
                yield Rejection(entry.path, f"the folder cannot be read: {error.strerror}", incomplete=True)
                continue
            if is_link and (inode in linked or any(inode == folder.inode for folder in open_folders)):
                yield Rejection(entry.path, "the link leads to a folder that is read already")
                continue
            if is_link:
                linked.add(inode)
            open_folders.append(_OpenFolder(inode, _list_entries(entry.path)))


@dataclass(frozen=True, slots=True)
class _OpenFolder:
    """A folder on the path from the root to the current one, and its entries that are not yet read."""

    inode: Inode
    entries: Iterator[os.DirEntry[str] | Rejection]


def _list_entries(folder: str) -> Iterator[os.DirEntry[str] | Rejection]:
    try:
        with os.scandir(folder) as entries:
            visible = sorted((e for e in entries if not e.name.startswith(".")), key=lambda entry: entry.name)
            return iter(_without_metadata_files(visible))
    except OSError as error:
        return iter([Rejection(folder, f"the folder cannot be read: {error.strerror}", incomplete=True)])


def _without_metadata_files(entries: Sequence[os.DirEntry[str]]) -> list[os.DirEntry[str]]:
    """Leave out `front.json` beside `front.jpg`: it is read with its image."""
    if not any(entry.name.endswith(".json") for entry in entries):
        return list(entries)
    images = {os.path.splitext(e.name)[0] for e in entries if PurePath(e.name).suffix.lower() in SUFFIXES}  # noqa: PTH122
    return [entry for entry in entries if not (entry.name.endswith(".json") and entry.name[: -len(".json")] in images)]


def _is_store(folder: os.DirEntry[str]) -> bool:
    """Whether a folder is a Milvus Lite store, whose files are none of the catalogue's."""
    return folder.name.endswith(".db") and Path(folder.path, "LOCK").exists()


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _check_file(entry: os.DirEntry[str], others: Counter[str]) -> Iterator[str | Rejection]:
    """Yield the path of an image or a Rejection, or count any other file."""
    suffix = PurePath(entry.name).suffix.lower()
    try:
        entry.stat()
    except OSError as error:
        # An unreadable image is rejected when it is read. Any other broken link may have led to a folder of images.
        if suffix not in SUFFIXES and entry.is_symlink():
            yield Rejection(entry.path, f"the link leads nowhere: {error.strerror}", incomplete=True)
            return
    if suffix in SUFFIXES:
        yield entry.path
    elif suffix in UNSUPPORTED_SUFFIXES:
        yield Rejection(entry.path, f"{suffix} images cannot be read; save it as JPEG or PNG")
    elif entry.name.lower() not in _IGNORED_FILES:
        others[suffix] += 1


def _inode(status: os.stat_result) -> Inode:
    return status.st_dev, status.st_ino
