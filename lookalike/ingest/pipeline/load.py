"""One image from its file to pixels, as far as it has to go: stamp, read, compare, decode, prepare.

Runs on many threads at once.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeAlias, cast

from lookalike.encode.engine import Content, LazyEngine, Prepared
from lookalike.encode.pixel_budget import PixelBudget
from lookalike.encode.stage_timer import StageTimer
from lookalike.ingest.pipeline.diff import Change, Diff, ExistingImage
from lookalike.ingest.pipeline.existing_rows import ExistingRows, StoredVector
from lookalike.ingest.reports.report import Rejection
from lookalike.ingest.sources.files import is_remote, stat_file
from lookalike.schema.errors import BadImage
from lookalike.schema.product import FileState, ProductImage

ReadChanged: TypeAlias = Callable[[str, FileState | None], tuple[Content, FileState] | None]
"""Reads an image; None when it is remote, and still the file that was given. Raises BadImage."""


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """An image that is ready to be encoded."""

    image: ProductImage
    file: FileState
    change: Change
    pixels: Prepared


@dataclass(frozen=True, slots=True)
class Unchanged:
    """An image whose row is up to date."""

    image: ProductImage


Loaded = LoadedImage | StoredVector | Unchanged | Rejection


@dataclass(frozen=True, slots=True)
class Loader:
    """Reads, compares and decodes the images of a run."""

    diff: Diff
    existing: ExistingRows
    engine: LazyEngine
    read: ReadChanged
    timer: StageTimer
    budget: PixelBudget
    """The pixels that are decoded at the same time."""

    cpu_slots: AbstractContextManager[object]
    """A semaphore of the threads that may read files and decode; more threads may wait for a network."""

    def load(self, item: ProductImage | StoredVector | Rejection) -> Loaded:
        """Find out what an image needs, and load its pixels if it has to be encoded; a bad image is a Rejection."""
        if not isinstance(item, ProductImage):
            return item
        try:
            return self._load_remote(item) if is_remote(item.image) else self._load_file(item)
        except BadImage as error:
            return Rejection.of(item, error)

    def load_pixels(self, image: ProductImage, change: Change) -> LoadedImage:
        """Load the pixels of an image, whatever is stored of it. Raises BadImage."""
        content, file = self._read(image)
        return LoadedImage(image, file, change, self.engine.prepare(content, self.budget))

    def _load_file(self, image: ProductImage) -> Loaded:
        with self.cpu_slots:
            content, file = self._read(image)
            return self._load_content(image, content, file)

    def _load_remote(self, image: ProductImage) -> Loaded:
        """Wait for the network without a slot: an image is decoded in 10 ms, and may take a second to arrive."""
        with self.timer.measure("read"):
            changed = self.read(image.image, self.diff.existing_file(image))
        if changed is None:
            return _reuse_row(image, self.diff.compare_metadata(image), self.diff.existing[image.image_id])
        with self.cpu_slots:
            return self._load_content(image, *changed)

    def _read(self, image: ProductImage) -> tuple[Content, FileState]:
        with self.timer.measure("read"):
            # Without a known file there is always content.
            return cast("tuple[Content, FileState]", self.read(image.image, None))

    def _load_content(self, image: ProductImage, content: Content, read_file: FileState) -> Loaded:
        file = self.existing.as_stored(read_file)
        change = self.diff.compare_content(image, file)
        # A file without a time is read by every run, and then nothing about it is new.
        if change is Change.TOUCHED and self.diff.existing_file(image) == file:
            return Unchanged(image)
        has_own_vector = change in (Change.METADATA, Change.TOUCHED)
        key = image.image_id if has_own_vector else self.existing.find_vector(file.hash)
        if key is not None:
            return StoredVector(image, file, change, key)
        return LoadedImage(image, file, change, self.engine.prepare(content, self.budget))


def compare_file(image: ProductImage, diff: Diff) -> Unchanged | StoredVector | None:
    """Compare the size and mtime of a file with its row; None when it has to be read. Raises BadImage."""
    row = diff.existing.get(image.image_id)
    change = None if row is None else diff.compare_stamp(image, stat_file(image.image))
    return None if row is None or change is None else _reuse_row(image, change, row)


def _reuse_row(image: ProductImage, change: Change, row: ExistingImage) -> Unchanged | StoredVector:
    if change is Change.METADATA:
        return StoredVector(image, row.file, change, image.image_id)
    return Unchanged(image)
