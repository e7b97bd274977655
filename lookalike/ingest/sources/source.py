"""What every source of images provides."""

from collections.abc import Iterator, Mapping
from typing import Protocol

from lookalike.ingest.reports.report import Rejection
from lookalike.schema.collection import describe_misfit
from lookalike.schema.errors import BadSettings
from lookalike.schema.product import ProductImage


class ImageSource(Protocol):
    """Names the images of a catalogue; `open_source` in open.py chooses the class for a name."""

    name: str
    """The source that owns the rows: `--prune` never removes rows of another source."""

    description: str
    """How the source says which product an image belongs to; printed when a run starts."""

    passed_over: Mapping[str, int]
    """How many files of each suffix are no images; counted by `images` when it is read to its end."""

    def images(self) -> Iterator[ProductImage | Rejection]:
        """Yield every image, or a Rejection that says why one cannot be used. Images are not opened.

        The iterator is lazy. Each call starts from the beginning: `--watch` calls it for every run. An image keeps its
        `image_id` from run to run (see `ProductImage.named`). A Rejection is `incomplete` when it hides which images
        there are, such as a folder that cannot be read; then nothing is pruned. Raises BadSource when the source as a
        whole cannot be read.
        """

    def count(self) -> int | None:
        """Count the items of `images`, for the progress bar; None when that would consume the source."""


def check_source_name(name: str) -> str:
    """Return a name that fits the column `source`. Raises BadSettings for any other."""
    if not name.strip():
        raise BadSettings("--source-name is empty; leave it out, or give the source a name")
    problem = describe_misfit({"source": name}, {})
    if problem:
        raise BadSettings(f"--source-name: {problem}")
    return name
