"""One image from its file to pixels, as far as it has to go: look, read, compare, decode, prepare.

Runs on many threads at once.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass

from lookalike.encode.engine import Content, LazyEngine, Prepared
from lookalike.encode.pixel_budget import PixelBudget
from lookalike.ingest.pipeline.diff import Change, Diff, ExistingImage
from lookalike.ingest.pipeline.existing_rows import ExistingRows, StoredVector
from lookalike.ingest.reports.report import Rejection
from lookalike.ingest.sources.files import is_remote, stat_file
from lookalike.schema.errors import BadImage
from lookalike.schema.product import FileState, ProductImage


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """An image that is ready for the network."""

    image: ProductImage
    file: FileState
    change: Change
    pixels: Prepared


@dataclass(frozen=True, slots=True)
class Unchanged:
    """An image whose row is as it should be."""

    image: ProductImage


Loaded = LoadedImage | StoredVector | Unchanged | Rejection


@dataclass(frozen=True, slots=True)
class Loader:
    """Loads images for a plan; an image may have as many pixels as the budget has in all.

    `turns` are those of the processor, a semaphore: more threads may wait for a network.
    """

    plan: Diff
    inventory: ExistingRows
    model: LazyEngine
    budget: PixelBudget
    turns: AbstractContextManager[object]

    def __call__(self, item: ProductImage | StoredVector | Rejection) -> Loaded:
        """Find out what an image needs, and load its pixels if it is a forward pass; a bad one is a Rejection."""
        if not isinstance(item, ProductImage):
            return item
        try:
            return self._compared(item)
        except BadImage as error:
            return Rejection.of(item, error)

    def pixels(self, image: ProductImage, change: Change) -> LoadedImage:
        """Load the pixels whatever is stored. Raises BadImage."""
        content, file = self.model.read(image.image)
        return LoadedImage(image, file, change, self.model.prepare(content, self.budget))

    def _compared(self, image: ProductImage) -> Loaded:
        """Read an image, and decode it if it is to be embedded; as many threads decode as there are turns.

        Those that wait for a network need no turn: a hundredth of a second of decoding is worth a second of waiting.
        """
        if not is_remote(image.image):
            with self.turns:
                return self._needed(image, self.model.read(image.image))
        read = self.model.read_changed(image.image, self.plan.known_file(image))
        if read is None:
            return _unchanged(image, self.plan.unread(image), self.plan.known[image.image_id])
        with self.turns:
            return self._needed(image, read)

    def _needed(self, image: ProductImage, read: tuple[Content, FileState]) -> Loaded:
        content, file = read[0], self.inventory.storable(read[1])
        change = self.plan.after_reading(image, file)
        # Nothing new is known of a file without a time.
        if change is Change.TOUCHED and self.plan.known_file(image) == file:
            return Unchanged(image)
        key = image.image_id if change in (Change.METADATA, Change.TOUCHED) else self.inventory.stored(file.hash)
        if key is not None:
            return StoredVector(image, file, change, key)
        return LoadedImage(image, file, change, self.model.prepare(content, self.budget))


def compare(image: ProductImage, plan: Diff) -> Unchanged | StoredVector | None:
    """Look at the size and time of a file; None when it has to be read. Raises BadImage."""
    known = plan.known.get(image.image_id)
    change = None if known is None else plan.at_a_glance(image, stat_file(image.image))
    return None if known is None or change is None else _unchanged(image, change, known)


def _unchanged(image: ProductImage, change: Change, known: ExistingImage) -> Unchanged | StoredVector:
    if change is Change.METADATA:
        return StoredVector(image, known.file, change, image.image_id)
    return Unchanged(image)
