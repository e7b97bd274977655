"""The page of outcomes is written from the lines that the suite recorded."""

import json
from pathlib import Path

from hostile.write_trust import write_trust


def test_a_table_for_each_area_with_each_attack_once(tmp_path: Path) -> None:
    lines = [["Service", "b", "413"], ["Service", "a | c", "400"], ["Store", "killed", "kept"], ["Service", "b", "413"]]
    (tmp_path / "outcomes").write_text("\n".join(json.dumps(line) for line in lines))
    write_trust(tmp_path / "outcomes", tmp_path / "trust.md")
    text = (tmp_path / "trust.md").read_text()
    assert "3 attacks in 2 areas" in text
    assert text.index("| a \\| c | 400 |") < text.index("| b | 413 |") < text.index("| killed | kept |")
