"""Write docs/trust.md from the outcomes that the hostile suite recorded: `python write_trust.py OUTCOMES DOCUMENT`."""

import json
import sys
from collections import defaultdict
from pathlib import Path

_INTRODUCTION = """# What was tried against lookalike

`make test-hostile` tries these attacks and accidents on this machine, over loopback only, and writes this page from
what it saw. A row is written only after the assertions of its test have passed.
"""


def write_trust(outcomes: Path, document: Path) -> None:
    """Write a table for each area, its attacks in the order of their names."""
    areas: dict[str, dict[str, str]] = defaultdict(dict)
    for line in outcomes.read_text(encoding="utf-8").splitlines():
        area, attack, outcome = json.loads(line)
        areas[area][attack] = outcome
    parts = [_INTRODUCTION, f"{sum(map(len, areas.values()))} attacks in {len(areas)} areas.\n"]
    for area in sorted(areas):
        rows = "".join(f"| {_cell(attack)} | {_cell(areas[area][attack])} |\n" for attack in sorted(areas[area]))
        parts.append(f"## {area}\n\n| attack | outcome |\n|---|---|\n{rows}")
    document.write_text("\n".join(parts), encoding="utf-8")


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


if __name__ == "__main__":
    write_trust(Path(sys.argv[1]), Path(sys.argv[2]))
