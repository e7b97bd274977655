"""How much a run does at once."""

from dataclasses import dataclass

from lookalike.encode.image_limits import MAX_PIXELS

_MAX_BATCHES = 16
"""Two for each of eight GPUs."""

_MAX_FETCHES = 16


@dataclass(frozen=True, slots=True)
class PipelineLimits:
    """How much a run reads, decodes and encodes at the same time."""

    workers: int = 2
    """Threads that read files and decode."""

    max_pixels: int = MAX_PIXELS
    """Pixels that are decoded at the same time, and those of the largest image."""

    batches: int = _MAX_BATCHES
    """Batches that are encoded or wait for the encoder."""

    fetches: int = _MAX_FETCHES
    """Threads that may wait for images from other machines."""

    @property
    def threads(self) -> int:
        """How many threads load images: more than decode, since those that wait for a network need no core."""
        return max(self.workers, self.fetches)

    @property
    def loaded_ahead(self) -> int:
        """How many images may be loaded before they are put into a batch."""
        return max(8 * self.workers, self.threads)
