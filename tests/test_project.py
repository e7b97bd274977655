"""Rules that hold for the whole project."""

import ast
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lookalike"
FOLDERS = [PACKAGE, *(folder for folder in sorted(PACKAGE.rglob("*")) if (folder / "__init__.py").exists())]
MAX_FILES = 13


def name_of(folder: Path) -> str:
    return f"{folder.relative_to(ROOT)}/"


def test_three_packages_are_linked_at_the_root_and_nothing_imports_through_the_links() -> None:
    for name in ("ingest", "search", "schema"):
        assert (ROOT / name).is_symlink()
        assert (ROOT / name).resolve() == PACKAGE / name
    for file in [*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]:
        for line in file.read_text().splitlines():
            assert not re.match(r"(from|import) (ingest|search|schema)\b", line), f"{file}: {line}"


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_no_folder_has_more_than_13_files(folder: Path) -> None:
    files = [file.name for file in folder.glob("*.py") if file.name != "__init__.py"]
    assert len(files) <= MAX_FILES, f"{name_of(folder)}: split these {len(files)} files into packages: {files}"


def test_type_checkers_find_our_types() -> None:
    assert (PACKAGE / "py.typed").exists()


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/how-it-works.md"])
def test_every_path_in_the_documentation_exists(page: str) -> None:
    text = (ROOT / page).read_text()
    paths = re.findall(r"(?<![\w./~-])(?:lookalike|tests|benchmarks|docs|docker|\.ci)/[\w./-]*", text)
    assert len(paths) > 20
    for path in paths:
        assert (ROOT / path.rstrip(".")).exists(), f"{page} names {path}, which does not exist"


def test_contributing_lists_every_package() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    missing = [name_of(folder) for folder in FOLDERS[1:] if f"\n{name_of(folder)} " not in text]
    assert not missing, f"CONTRIBUTING.md does not list {missing}"


UNSAFE_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


def calls(tree: ast.AST) -> Iterator[tuple[str, dict[str, ast.expr]]]:
    """Every call in a file: the name of what is called, and its keyword arguments."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {keyword.arg or "**": keyword.value for keyword in node.keywords}


def imports(tree: ast.AST) -> Iterator[str]:
    """Every top-level package that a file imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_nothing_that_is_read_can_run_code(folder: Path) -> None:
    for file in folder.glob("*.py"):
        tree = ast.parse(file.read_text())
        assert not UNSAFE_MODULES.intersection(imports(tree)), file
        for name, keywords in calls(tree):
            assert name not in ("eval", "exec"), file
            assert not {"trust_remote_code", "allow_pickle", "shell"} & set(keywords), f"{file}: {name}"
            assert name != "torch.load" or ast.unparse(keywords["weights_only"]) == "True", file


def test_the_page_of_errors_is_written_from_their_docstrings() -> None:
    sys.path.insert(0, str(ROOT / "docs"))
    write_errors = importlib.import_module("write_errors")
    assert (ROOT / "docs" / "errors.md").read_text() == write_errors.write_page(), "run `make docs`"
