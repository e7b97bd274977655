"""Where a program measures what its stages take."""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

_NOTHING = nullcontext()


class StageTimer(Protocol):
    """Measures the stages of a run, on any thread."""

    def measure(self, stage: str, images: int = 1) -> AbstractContextManager[None]:
        """Measure what a stage does with so many images, from entering the context to leaving it."""


class _NoTimer:
    def measure(self, stage: str, images: int = 1) -> AbstractContextManager[None]:
        return _NOTHING


NO_TIMER: StageTimer = _NoTimer()
"""Measures nothing."""
