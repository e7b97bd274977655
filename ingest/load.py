"""One picture from its file to pixels, as far as it has to go: look, read, compare, decode, prepare.

Runs on many threads at once.
"""

from dataclasses import dataclass

from encode.budget import PixelBudget
from ingest.files import glance, is_remote
from ingest.inventory import Inventory, StoredVector
from ingest.model import Model, Prepared
from ingest.plan import Change, Plan
from ingest.report import Rejection
from schema.errors import BadImage
from schema.product import FileState, ProductImage


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
    """Loads pictures for a plan; a picture may have as many pixels as the budget has in all."""

    plan: Plan
    inventory: Inventory
    model: Model
    budget: PixelBudget

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
        if is_remote(picture.image):
            step = compare(picture, self.plan)
            if step is not None:
                return step
        content, file = self.model.read(picture.image)
        change = self.plan.after_reading(picture, file)
        # Nothing new is known of a file without a time.
        if change is Change.TOUCHED and self.plan.known[picture.image_id].stamp == (file.size, file.mtime):
            return Unchanged(picture)
        key = picture.image_id if change in (Change.METADATA, Change.TOUCHED) else self.inventory.stored(file.hash)
        if key is not None:
            return StoredVector(picture, file, change, key)
        return LoadedImage(picture, file, change, self.model.prepare(content, self.budget))


def compare(picture: ProductImage, plan: Plan) -> Unchanged | StoredVector | None:
    """Look at a picture's size and time; None when it has to be read. Raises BadImage."""
    known = plan.known.get(picture.image_id)
    stamp = None if known is None else glance(picture.image)
    if known is None or stamp is None:
        return None
    change = plan.at_a_glance(picture, stamp)
    if change is Change.METADATA:
        return StoredVector(picture, FileState(known.image_hash, *stamp), change, picture.image_id)
    return None if change is None else Unchanged(picture)
