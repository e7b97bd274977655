"""Source against collection: what has to change to make them equal. Nothing is read or written here."""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from lookalike.schema.product import FileState, ProductImage, metadata_hash


class Change(StrEnum):
    """How an image of the source differs from its row in the collection."""

    NEW = "new"
    """There is no row."""
    CONTENT = "content"
    """Other bytes than those that the row was made from."""
    METADATA = "metadata"
    """The same bytes; other metadata, or another path or URI."""
    TOUCHED = "touched"
    """The same bytes and metadata, in a file that was written again."""
    UNCHANGED = "unchanged"


class FileStamp(NamedTuple):
    """What a file system knows of a file without reading it: its size in bytes, and its mtime in nanoseconds."""

    size: int
    mtime: int


class ExistingImage(NamedTuple):
    """What a row says about the image that it was made from."""

    image_hash: str
    metadata_hash: str
    stamp: FileStamp
    image: str
    product_id: str
    etag: str = ""

    @property
    def file(self) -> FileState:
        """The file that the row was made from."""
        return FileState(self.image_hash, *self.stamp, self.etag)


class Diff:
    """Compares the images of a source, in any order, with the rows that the collection has of that source.

    Size and mtime come first: only when they differ are the bytes read, and only when those differ too is the image
    encoded again. An mtime of 0 says that the time is not known.
    """

    def __init__(self, existing: Mapping[str, ExistingImage]) -> None:
        self.existing = existing
        """The rows of the source, by image_id."""
        self.is_complete = True
        """Whether the whole source could be listed. If not, a missing image may be in the part that could not."""
        self._seen: set[str] = set()
        self._unreadable: set[str] = set()

    def mark_seen(self, image_id: str) -> bool:
        """Note that the source has an image; return False when it has listed the same one before."""
        is_first = image_id not in self._seen
        self._seen.add(image_id)
        return is_first

    def mark_rejected(self, image_id: str | None, *, incomplete: bool = False, unreadable: bool = False) -> bool:
        """Note an image that cannot be used; return whether the collection has a row of it, which stays."""
        self.is_complete = self.is_complete and not incomplete
        if image_id is None or image_id not in self.existing:
            return False
        self._seen.add(image_id)
        if unreadable:
            self._unreadable.add(image_id)
        return True

    def existing_file(self, image: ProductImage) -> FileState | None:
        """Return the file that the row was made from; None without a row, or when its image had another path."""
        row = self.existing.get(image.image_id)
        # Another path is another file, whatever its size, time and ETag.
        return None if row is None or row.image != image.image else row.file

    def compare_metadata(self, image: ProductImage) -> Change:
        """Compare an image whose file is the existing one."""
        return Change.METADATA if _has_other_metadata(image, self.existing[image.image_id]) else Change.UNCHANGED

    def compare_stamp(self, image: ProductImage, stamp: FileStamp) -> Change | None:
        """Compare by size and mtime; None when the bytes have to be read."""
        file = self.existing_file(image)
        if file is None or (file.size, file.mtime) != stamp or not stamp.mtime:
            return None
        return self.compare_metadata(image)

    def compare_content(self, image: ProductImage, file: FileState) -> Change:
        """Compare by the hash of the bytes."""
        row = self.existing.get(image.image_id)
        if row is None:
            return Change.NEW
        if row.image_hash != file.hash:
            return Change.CONTENT
        return Change.METADATA if _has_other_metadata(image, row) else Change.TOUCHED

    def removed(self) -> list[str]:
        """Return the keys of the rows that the source has no image for, after the whole source was listed."""
        return [image_id for image_id in self.existing if image_id not in self._seen]

    def unreadable(self) -> list[str]:
        """Return the keys of the rows whose image the source still lists, but which cannot be read any more."""
        return sorted(self._unreadable)


def _has_other_metadata(image: ProductImage, row: ExistingImage) -> bool:
    return image.image != row.image or metadata_hash(image.metadata) != row.metadata_hash
