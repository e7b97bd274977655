"""What holds for the project as a whole."""

import importlib
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("lookalike", "ingest", "search", "serve", "stack", "encode", "schema")


@pytest.mark.parametrize("name", OURS)
def test_no_other_distribution_owns_one_of_our_names(name: str) -> None:
    """PyPI has a package `schema` that would write over ours."""
    owners = set(metadata.packages_distributions().get(name, [])) - {"lookalike"}
    assert not owners, f"uninstall {', '.join(owners)}: it brings a package {name!r} of its own"
    assert str(ROOT) in str(importlib.import_module(name).__file__)


def test_packages_are_one_docstring() -> None:
    for name in OURS[1:]:
        lines = (ROOT / name / "__init__.py").read_text().strip().splitlines()
        assert len(lines) == 1
        assert lines[0].startswith('"""')
