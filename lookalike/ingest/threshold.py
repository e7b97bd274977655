"""Limits that stop a run before it does harm."""

import re
from dataclasses import dataclass

from lookalike.schema.errors import BadSettings


@dataclass(frozen=True, slots=True)
class Threshold:
    """A number of rows, or a percentage of them: `500` or `20%`."""

    text: str

    def __post_init__(self) -> None:
        match = re.fullmatch(r"[0-9]{1,12}|([0-9]{1,3}(?:\.[0-9]{1,6})?)\s*%", self.text)
        if match is None or (match[1] and float(match[1]) > 100):
            raise BadSettings(f"{self.text!r} is not a limit; write a number such as 500, or a percentage such as 20%")

    def of(self, total: int) -> int:
        """Return how many of `total` rows are still within the limit."""
        if self.text.endswith("%"):
            return int(total * float(self.text.rstrip("% ")) / 100)
        return int(self.text)

    @property
    def allows_all(self) -> bool:
        """Whether the limit is all rows: 100%."""
        return self.text.endswith("%") and float(self.text.rstrip("% ")) == 100


@dataclass(frozen=True, slots=True)
class PruneOptions:
    """How many rows may be deleted, and whether also those whose image cannot be read any more."""

    max_removals: Threshold
    unreadable: bool = False


@dataclass(frozen=True, slots=True)
class MoveOptions:
    """The source whose rows the run takes over, and how many of them may be deleted without a counterpart."""

    source: str
    max_removals: Threshold
