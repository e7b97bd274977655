"""The notebook of the documentation runs from its first cell to its last, and finds what it says."""

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from command import ROOT

NOTEBOOK = ROOT / "docs" / "similar-products.ipynb"


def read_cells() -> list[dict[str, Any]]:
    notebook = json.loads(NOTEBOOK.read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    cells: list[dict[str, Any]] = notebook["cells"]
    return cells


def test_the_notebook_is_stored_without_outputs() -> None:
    cells = read_cells()
    assert len({cell["id"] for cell in cells}) == len(cells)
    for cell in cells:
        assert cell["cell_type"] in ("code", "markdown")
        if cell["cell_type"] == "code":
            assert (cell["execution_count"], cell["outputs"]) == (None, [])


def test_links_of_the_notebook_lead_somewhere() -> None:
    text = "".join("".join(cell["source"]) for cell in read_cells() if cell["cell_type"] == "markdown")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (NOTEBOOK.parent / target).exists(), target


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    with contextlib.chdir(tmp_path):
        for cell in read_cells():
            if cell["cell_type"] == "code":
                exec(compile("".join(cell["source"]), cell["id"], "exec"), namespace)
    assert namespace["result"][0].product_id == "red-plain-mug"
    assert {hit.metadata["category"] for hit in namespace["result"]} <= {"mug", "bag"}
    assert {hit.metadata["category"] for hit in namespace["similar"]} <= {"shirt", "hat"}
    assert len(namespace["table"]) == len(namespace["result"]) == 5
    printed = capsys.readouterr().out
    assert "192 stored, 0 rejected" in printed
    assert "DeleteResult(images=3, products=1)" in printed
    assert not list(tmp_path.iterdir()), "the notebook works in its own temporary folder"
