"""The hostile suite: what an attacker, a failing disk or a killed process does, and what lookalike makes of it.

`make test-hostile` runs it, and writes the attacks and their outcomes to docs/trust.md.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

Outcome = Callable[[str, str, str], None]
"""Records a row of docs/trust.md: area, attack, outcome. Call it after the assertions that show the outcome."""

_FILE = os.environ.get("LOOKALIKE_OUTCOMES")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test in this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.hostile)


@pytest.fixture
def outcome() -> Outcome:
    """Record what an attack came to; without the variable LOOKALIKE_OUTCOMES, record nothing."""

    def record(area: str, attack: str, result: str) -> None:
        if _FILE:
            with Path(_FILE).open("a", encoding="utf-8") as file:
                # One write, so that lines of several test processes do not mix.
                file.write(json.dumps([area, attack, result]) + "\n")

    return record
