"""How many cores a process may use."""

from pathlib import Path

import pytest

from lookalike.encode.process_tuning import cpu_quota


@pytest.mark.parametrize(
    ("cpu_max", "expected"),
    [("max 100000\n", None), ("250000 100000\n", 3), ("5000 100000", 1), ("", None), ("no", None)],
)
def test_a_cpu_quota_is_rounded_up_to_whole_cores(tmp_path: Path, cpu_max: str, expected: int | None) -> None:
    (tmp_path / "cpu.max").write_text(cpu_max)
    assert cpu_quota(tmp_path / "cpu.max") == expected
    assert cpu_quota(tmp_path / "missing") is None
