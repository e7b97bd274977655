"""One picture from its file to pixels: read, check, decode, prepare. Runs on many threads at once."""

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from encode.decode import MAX_BYTES, open_picture, unpack
from encode.encoder import Encoder
from encode.preprocess import Pixels
from ingest.report import Rejection
from schema.collection import misfit
from schema.errors import BadImage
from schema.product import FileState, ProductImage


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """A picture that is ready for the network."""

    picture: ProductImage
    file: FileState
    pixels: Pixels


class PixelBudget:
    """Lets threads decode at the same time as long as their pictures together have at most `most` pixels.

    A larger picture waits until it is alone: memory is bounded by the budget, not by threads times large pictures.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._free = most
        self._returned = threading.Condition()

    @contextmanager
    def take(self, pixels: int) -> Iterator[None]:
        """Hold `pixels` of the budget, waiting until they are free."""
        held = min(pixels, self.most)
        with self._returned:
            self._returned.wait_for(lambda: self._free >= held)
            self._free -= held
        try:
            yield
        finally:
            with self._returned:
                self._free += held
                self._returned.notify_all()


def load(encoder: Encoder, budget: PixelBudget, item: ProductImage | Rejection) -> LoadedImage | Rejection:
    """Load one picture; a bad one, or one that its source has given up, comes back as a Rejection.

    A picture may have as many pixels as the budget has in all.
    """
    if isinstance(item, Rejection):
        return item
    texts = {"product_id": item.product_id, "image": item.image, "source": item.source}
    problem = misfit(texts, item.metadata)
    if problem:
        return Rejection(item.image, problem)
    try:
        content, mtime = _read(item.image)
        image = open_picture(content, budget.most)
        with budget.take(image.width * image.height):
            pixels = encoder.prepare(unpack(image))
    except BadImage as error:
        return Rejection(item.image, str(error))
    return LoadedImage(item, FileState.of(content, mtime), pixels)


def _read(path: str) -> tuple[bytes, int]:
    """Read a file and its mtime in nanoseconds. Raises BadImage; never waits on a pipe or device."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise BadImage("not a regular file")
            if status.st_size > MAX_BYTES:
                raise BadImage(f"the file has {status.st_size} bytes; {MAX_BYTES} is the limit")
            return file.read(), status.st_mtime_ns
    except OSError as error:
        raise BadImage(f"the file cannot be read: {error.strerror or error}") from error
