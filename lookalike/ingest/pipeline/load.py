"""One picture from its file to pixels, as far as it has to go: look, read, compare, decode, prepare.

Runs on many threads at once.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass

from lookalike.encode.engine import Content, Model, Prepared
from lookalike.encode.pixel_budget import PixelBudget
from lookalike.ingest.pipeline.diff import Change, Known, Plan
from lookalike.ingest.pipeline.existing_rows import Inventory, StoredVector
from lookalike.ingest.reports.report import Rejection
from lookalike.ingest.sources.files import glance, is_remote
from lookalike.schema.errors import BadImage
from lookalike.schema.product import FileState, ProductImage


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """A picture that is ready for the network."""

    picture: ProductImage
    file: FileState
    change: Change
    pixels: Prepared


@dataclass(frozen=True, slots=True)
class Unchanged:
    """A picture whose row is as it should be."""

    picture: ProductImage


Loaded = LoadedImage | StoredVector | Unchanged | Rejection


@dataclass(frozen=True, slots=True)
class Loader:
    """Loads images for a plan; an image may have as many pixels as the budget has in all.

    `turns` are those of the processor, a semaphore: more threads may wait for a network.
    """

    plan: Plan
    inventory: Inventory
    model: Model
    budget: PixelBudget
    turns: AbstractContextManager[object]

    def __call__(self, item: ProductImage | StoredVector | Rejection) -> Loaded:
        """Find out what a picture needs, and load its pixels if it is a forward pass; a bad one is a Rejection."""
        if not isinstance(item, ProductImage):
            return item
        try:
            return self._compared(item)
        except BadImage as error:
            return Rejection.of(item, error)

    def pixels(self, picture: ProductImage, change: Change) -> LoadedImage:
        """Load the pixels whatever is stored. Raises BadImage."""
        content, file = self.model.read(picture.image)
        return LoadedImage(picture, file, change, self.model.prepare(content, self.budget))

    def _compared(self, picture: ProductImage) -> Loaded:
        """Read an image, and decode it if it is to be embedded; as many threads decode as there are turns.

        Those that wait for a network need no turn: a hundredth of a second of decoding is worth a second of waiting.
        """
        if not is_remote(picture.image):
            with self.turns:
                return self._needed(picture, self.model.read(picture.image))
        read = self.model.read_changed(picture.image, self.plan.known_file(picture))
        if read is None:
            return _unchanged(picture, self.plan.unread(picture), self.plan.known[picture.image_id])
        with self.turns:
            return self._needed(picture, read)

    def _needed(self, picture: ProductImage, read: tuple[Content, FileState]) -> Loaded:
        content, file = read[0], self.inventory.storable(read[1])
        change = self.plan.after_reading(picture, file)
        # Nothing new is known of a file without a time.
        if change is Change.TOUCHED and self.plan.known_file(picture) == file:
            return Unchanged(picture)
        key = picture.image_id if change in (Change.METADATA, Change.TOUCHED) else self.inventory.stored(file.hash)
        if key is not None:
            return StoredVector(picture, file, change, key)
        return LoadedImage(picture, file, change, self.model.prepare(content, self.budget))


def compare(picture: ProductImage, plan: Plan) -> Unchanged | StoredVector | None:
    """Look at the size and time of a file; None when it has to be read. Raises BadImage."""
    known = plan.known.get(picture.image_id)
    change = None if known is None else plan.at_a_glance(picture, glance(picture.image))
    return None if known is None or change is None else _unchanged(picture, change, known)


def _unchanged(picture: ProductImage, change: Change, known: Known) -> Unchanged | StoredVector:
    if change is Change.METADATA:
        return StoredVector(picture, known.file, change, picture.image_id)
    return Unchanged(picture)
