"""The stages of a search (decode, encode, lookup, search), and what the caller does around each of them."""

from collections.abc import Callable
from contextlib import AbstractContextManager

TimeStage = Callable[[str], AbstractContextManager[object]]
"""Measures a stage: takes its name and returns a context manager that is entered around it."""

CheckDeadline = Callable[[], None]
"""Called before each stage; raises to abort the search."""


def no_deadline() -> None:
    """Check nothing: the search may take as long as it needs."""
