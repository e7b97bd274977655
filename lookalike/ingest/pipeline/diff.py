"""Source against collection: what has to be done to make them equal. Nothing is read or written here."""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from lookalike.schema.product import FileState, ProductImage, metadata_hash


class Change(StrEnum):
    """What an image of the source is to the collection."""

    NEW = "new"
    IMAGE = "image"
    """Other bytes than those that the row was made from."""
    METADATA = "metadata"
    """The same bytes; other metadata, or another place."""
    TOUCHED = "touched"
    """The same bytes and metadata in a file that was written again."""
    UNCHANGED = "unchanged"


class FileStamp(NamedTuple):
    """What a file system knows of a file without reading it: bytes, and when it was written, in nanoseconds."""

    size: int
    mtime: int


class ExistingImage(NamedTuple):
    """What a row remembers of the image that it was made from."""

    image_hash: str
    metadata_hash: str
    stamp: FileStamp
    image: str
    product_id: str
    etag: str = ""

    @property
    def file(self) -> FileState:
        """The file that it was made from."""
        return FileState(self.image_hash, *self.stamp, self.etag)


class Diff:
    """Compares the images of a source, in any order, with the rows that the collection has of it.

    Size and mtime first: only when they differ are the bytes read, and only when those differ too is an image
    embedded again. An mtime of 0 says that nothing is known of the time.
    """

    def __init__(self, known: Mapping[str, ExistingImage]) -> None:
        self.known = known
        self.complete = True
        """Whether all of the source could be read: of what could not, nobody knows what was in it."""
        self._seen: set[str] = set()
        self._unreadable: set[str] = set()

    def meet(self, image_id: str) -> bool:
        """Note that the source has an image; False when it has named the same one before."""
        first = image_id not in self._seen
        self._seen.add(image_id)
        return first

    def reject(self, image_id: str | None, *, complete: bool = True, unreadable: bool = False) -> bool:
        """Note an image that cannot be used; True when the collection has a row of it, which stays."""
        self.complete = self.complete and complete
        if image_id is None or image_id not in self.known:
            return False
        self._seen.add(image_id)
        if unreadable:
            self._unreadable.add(image_id)
        return True

    def known_file(self, image: ProductImage) -> FileState | None:
        """The file that a row was made from; None without a row, and where its image was in another place."""
        known = self.known.get(image.image_id)
        # Another place is another file, whatever its size, time and version.
        return None if known is None or known.image != image.image else known.file

    def unread(self, image: ProductImage) -> Change:
        """Compare an image whose file is the one that is known."""
        return Change.METADATA if _said_otherwise(image, self.known[image.image_id]) else Change.UNCHANGED

    def at_a_glance(self, image: ProductImage, stamp: FileStamp) -> Change | None:
        """Compare without reading; None when the bytes are needed to know."""
        known = self.known_file(image)
        if known is None or (known.size, known.mtime) != stamp or not stamp.mtime:
            return None
        return self.unread(image)

    def after_reading(self, image: ProductImage, file: FileState) -> Change:
        """Compare once the bytes are known."""
        known = self.known.get(image.image_id)
        if known is None:
            return Change.NEW
        if known.image_hash != file.hash:
            return Change.IMAGE
        return Change.METADATA if _said_otherwise(image, known) else Change.TOUCHED

    def removed(self) -> list[str]:
        """The keys of the rows that the source has no image for, once all of the source was met."""
        return [image_id for image_id in self.known if image_id not in self._seen]

    def unreadable(self) -> list[str]:
        """The keys of the rows whose image the source still names, but cannot be used any more."""
        return sorted(self._unreadable)


def _said_otherwise(image: ProductImage, known: ExistingImage) -> bool:
    return image.image != known.image or metadata_hash(image.metadata) != known.metadata_hash
