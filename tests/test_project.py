"""What holds for the project as a whole."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lookalike"


def test_three_packages_are_linked_where_a_newcomer_looks_and_nothing_imports_through_the_links() -> None:
    for name in ("ingest", "search", "schema"):
        assert (ROOT / name).is_symlink()
        assert (ROOT / name).resolve() == PACKAGE / name
    for file in [*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]:
        for line in file.read_text().splitlines():
            assert not re.match(r"(from|import) (ingest|search|schema)\b", line), f"{file}: {line}"
