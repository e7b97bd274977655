"""Where images come from: a folder, searched recursively."""

import errno
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Protocol

from lookalike.encode.decode import SUFFIXES
from lookalike.ingest.reports.report import Rejection
from lookalike.ingest.sources.files import read_file
from lookalike.ingest.sources.layout import PathFields
from lookalike.ingest.sources.metadata import ManifestRow, read_metadata
from lookalike.schema.collection import describe_misfit
from lookalike.schema.errors import BadImage, BadSettings, BadSource
from lookalike.schema.metadata import ColumnTypes
from lookalike.schema.product import ProductImage

_JUNK_FOLDERS = frozenset({"__MACOSX", "@eaDir"})
_OTHER_IMAGES = frozenset({".heic", ".heif", ".svg", ".psd", ".raw", ".jxl", ".jp2"})

Inode = tuple[int, int]


class Rule(Protocol):
    """Reads a product out of a path."""

    description: str

    def place(self, path: str) -> PathFields:
        """Read a path relative to the source; raises ValueError with the reason when it says nothing."""


class FolderSource:
    """The images under a folder, in the order of their names.

    A JSON file of the same name beside an image adds metadata to what the rule reads from its path; `fields` declares
    types of its columns. `name` says whose rows they are; by default the folder's own path, so that the same folder
    always is the same source, from wherever it is read.
    """

    def __init__(self, root: Path, rule: Rule, name: str | None = None, fields: ColumnTypes | None = None) -> None:
        _look_at(root)
        # Not resolved: behind a link such as `current` there may be another folder tomorrow.
        self.root = root.absolute()
        self.name = str(root.resolve()) if name is None else name
        problem = describe_misfit({"source": self.name}, {})
        if problem:
            raise BadSettings(f"--source-name: {problem}")
        self.description = rule.description
        self._rule = rule
        self._fields = fields or {}

    def images(self) -> Iterator[ProductImage | Rejection]:
        """Name every image, or say why it is none; nothing is opened."""
        for path in self._images():
            yield path if isinstance(path, Rejection) else self._image(path)

    def count(self) -> int:
        """Count what `images` would give."""
        return sum(1 for _ in self._images())

    def example(self) -> tuple[str, PathFields] | None:
        """The first image that the rule can read, relative to the folder, and what is said of it."""
        for item in self.images():
            if isinstance(item, ProductImage):
                return self._relative(item.image), PathFields(item.product_id, dict(item.metadata))
        return None

    def _images(self) -> Iterator[str | Rejection]:
        # It may have gone since: a run of `--watch` looks again and again.
        return _walk(str(self.root), _look_at(self.root))

    def _image(self, path: str) -> ProductImage | Rejection:
        relative = self._relative(path)
        try:
            place = self._rule.place(relative)
        except ValueError as error:
            return Rejection(path, str(error))
        image = ProductImage.named(self.name, place.product_id, relative, path, place.metadata)
        try:
            beside = _beside(path)
            said = read_metadata(beside, self._fields) if beside else {}
        except ValueError as error:
            return Rejection(path, f"the JSON file beside it: {error}", image.image_id)
        return replace(image, metadata={**place.metadata, **said}) if said else image

    def _relative(self, path: str) -> str:
        """Name an image inside its folder; plain text, since there may be a million of them."""
        return path[len(str(self.root)) :].replace(os.sep, "/").lstrip("/")


def _beside(path: str) -> ManifestRow | None:
    """Read `front.json` beside `front.jpg`; None when there is none. Raises ValueError for a broken one."""
    beside = os.path.splitext(path)[0] + ".json"  # noqa: PTH122  as above
    try:
        row = json.loads(read_file(beside)[0].decode("utf-8-sig"))
    except OSError as error:
        # A name that is too long is nobody's.
        if error.errno in (errno.ENOENT, errno.ENAMETOOLONG):
            return None
        raise ValueError(error.strerror) from error
    except BadImage as error:
        raise ValueError(str(error)) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(row, dict):
        raise ValueError("it is no JSON object")
    return row


def _look_at(root: Path) -> Inode:
    try:
        status = root.stat()
    except OSError as error:
        raise BadSource(f"SOURCE {str(root)!r} cannot be read: {error.strerror}") from error
    if not stat.S_ISDIR(status.st_mode):
        raise BadSource(f"SOURCE {str(root)!r} is a file; give the folder that the images are in, or a manifest")
    return _inode(status)


def _walk(root: str, inode: Inode) -> Iterator[str | Rejection]:
    """Every image below a folder, in the order of names.

    Links to folders are followed once: one that leads back to a folder above it, or to where another link has led
    already, is rejected, so that no tangle of links is endless.
    """
    trail = [_Folder(inode, _entries(root))]
    linked: set[Inode] = set()
    while trail:
        entry = next(trail[-1].entries, None)
        if entry is None:
            trail.pop()
        elif isinstance(entry, Rejection):
            yield entry
        elif not _is_folder(entry):
            yield from _image(entry)
        elif entry.name not in _JUNK_FOLDERS:
            try:
                inode, link = _inode(entry.stat()), entry.is_symlink()
            except OSError as error:
                yield Rejection(entry.path, f"the folder cannot be read: {error.strerror}", incomplete=True)
                continue
            if link and (inode in linked or any(inode == folder.inode for folder in trail)):
                yield Rejection(entry.path, "the link leads to a folder that is read already")
                continue
            if link:
                linked.add(inode)
            trail.append(_Folder(inode, _entries(entry.path)))


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder that is being read."""

    inode: Inode
    entries: Iterator[os.DirEntry[str] | Rejection]


def _entries(folder: str) -> Iterator[os.DirEntry[str] | Rejection]:
    try:
        with os.scandir(folder) as entries:
            return iter(sorted((e for e in entries if not e.name.startswith(".")), key=lambda entry: entry.name))
    except OSError as error:
        return iter([Rejection(folder, f"the folder cannot be read: {error.strerror}", incomplete=True)])


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _image(entry: os.DirEntry[str]) -> Iterator[str | Rejection]:
    suffix = PurePath(entry.name).suffix.lower()
    try:
        entry.stat()
    except OSError as error:
        # An image that cannot be read is told when it is tried; any other link may have been to a folder of them.
        if suffix not in SUFFIXES and entry.is_symlink():
            yield Rejection(entry.path, f"the link leads nowhere: {error.strerror}", incomplete=True)
            return
    if suffix in SUFFIXES:
        yield entry.path
    elif suffix in _OTHER_IMAGES:
        yield Rejection(entry.path, f"{suffix} images cannot be read; save it as JPEG or PNG")


def _inode(status: os.stat_result) -> Inode:
    return status.st_dev, status.st_ino
