"""Where pictures come from: a folder, searched recursively."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Protocol

from encode.decode import SUFFIXES
from ingest.layout import Place
from ingest.report import Rejection
from schema.errors import BadSource
from schema.product import ProductImage

_JUNK_FOLDERS = frozenset({"__MACOSX", "@eaDir"})
_OTHER_PICTURES = frozenset({".heic", ".heif", ".svg", ".psd", ".raw", ".jxl", ".jp2"})

Inode = tuple[int, int]


class Rule(Protocol):
    """Reads a product out of a path."""

    description: str

    def place(self, path: str) -> Place:
        """Read a path relative to the source; raises ValueError with the reason when it says nothing."""


class FolderSource:
    """The pictures under a folder, in the order of their names.

    `name` says whose rows they are; by default the folder's own path, so that the same folder always is the same
    source, from wherever it is read.
    """

    def __init__(self, root: Path, rule: Rule, name: str | None = None) -> None:
        if not root.exists():
            raise BadSource(f"SOURCE {str(root)!r} does not exist")
        if not root.is_dir():
            raise BadSource(f"SOURCE {str(root)!r} is a file; give the folder that the pictures are in")
        self.root = root.resolve()
        self.name = name or str(self.root)
        self.description = rule.description
        self._rule = rule

    def images(self) -> Iterator[ProductImage | Rejection]:
        """Name every picture, or say why it is none; nothing is opened."""
        for path in self._pictures():
            yield path if isinstance(path, Rejection) else self._image(path)

    def count(self) -> int:
        """Count what `images` would give."""
        return sum(1 for _ in self._pictures())

    def example(self) -> tuple[str, Place] | None:
        """The first picture that the rule can read, relative to the folder, and what it says."""
        for item in self.images():
            if isinstance(item, ProductImage):
                return item.reference, Place(item.product_id, dict(item.metadata))
        return None

    def _pictures(self) -> Iterator[str | Rejection]:
        return _walk(str(self.root), (_inode(self.root.stat()),))

    def _image(self, path: str) -> ProductImage | Rejection:
        relative = Path(path).relative_to(self.root).as_posix()
        try:
            place = self._rule.place(relative)
        except ValueError as error:
            return Rejection(path, str(error))
        return ProductImage(self.name, place.product_id, relative, path, place.metadata)


def _walk(folder: str, ancestors: tuple[Inode, ...]) -> Iterator[str | Rejection]:
    """Every picture below a folder; links to folders are followed, unless they lead back to where we come from."""
    try:
        with os.scandir(folder) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        yield Rejection(folder, f"the folder cannot be read: {error.strerror}")
        return
    for entry in listed:
        if entry.name.startswith("."):
            continue
        try:
            is_folder, inode = entry.is_dir(), _inode(entry.stat())
        except OSError as error:
            if _suffix(entry) in SUFFIXES or entry.is_symlink():
                yield Rejection(entry.path, f"the link leads nowhere: {error.strerror}")
        else:
            if is_folder:
                yield from _enter(entry, inode, ancestors)
            elif _suffix(entry) in SUFFIXES:
                yield entry.path
            elif _suffix(entry) in _OTHER_PICTURES:
                yield Rejection(entry.path, f"{_suffix(entry)} pictures cannot be read; save it as JPEG or PNG")


def _enter(entry: os.DirEntry[str], inode: Inode, ancestors: tuple[Inode, ...]) -> Iterator[str | Rejection]:
    if entry.name in _JUNK_FOLDERS:
        return
    if inode in ancestors:
        yield Rejection(entry.path, "the link leads back to a folder above it")
        return
    yield from _walk(entry.path, (*ancestors, inode))


def _suffix(entry: os.DirEntry[str]) -> str:
    return PurePath(entry.name).suffix.lower()


def _inode(status: os.stat_result) -> Inode:
    return status.st_dev, status.st_ino
