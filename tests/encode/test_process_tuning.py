"""What a process may use of a machine."""

from pathlib import Path

import pytest

from lookalike.encode.process_tuning import cpu_quota


@pytest.mark.parametrize(
    ("told", "expected"), [("max 100000\n", None), ("250000 100000\n", 3), ("5000 100000", 1), ("", None), ("no", None)]
)
def test_a_container_has_as_many_cores_as_its_share_makes(tmp_path: Path, told: str, expected: int | None) -> None:
    (tmp_path / "cpu.max").write_text(told)
    assert cpu_quota(tmp_path / "cpu.max") == expected
    assert cpu_quota(tmp_path / "nothing") is None
