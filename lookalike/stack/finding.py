"""What a check of the doctor returns."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from lookalike.stack.options import DoctorOptions

State = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `do` is the next step, empty if `found` makes it obvious. `--format json` prints it."""

    check: str
    state: State
    found: str
    do: str = ""


Check = Callable[[DoctorOptions], Iterator[Finding]]
"""Checks one thing. The doctor reports any exception that it raises as a problem."""
