"""What the doctor finds."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

State = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `do` says what to do where that is not plain from what was found."""

    check: str
    state: State
    found: str
    do: str = ""


Check = Callable[[Mapping[str, Any]], Iterator[Finding]]
"""Looks at something, given the command's options. Whatever it raises becomes a problem."""
