"""The wheel works in a clean environment, next to packages and files with the names of our sub-packages."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOCK = str(ROOT / "requirements.lock")

API = """
import lookalike

shop = lookalike.connect("./lookalike.db")
[hit] = shop.search(image="shop/queries/red-plain-mug.jpg", limit=1)
print(hit.product_id)
"""

pytestmark = pytest.mark.slow


def run(*command: object, cwd: Path) -> str:
    """Run a command without this repository on its path; return its standard output."""
    hidden = ("LOOKALIKE_", "MILVUS_", "PYTHON")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    locked = {"PIP_CONSTRAINT": LOCK, "PIP_BUILD_CONSTRAINT": LOCK, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run([*map(str, command)], cwd=cwd, env={**inherited, **locked}, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel built from it."""
    folder = tmp_path_factory.mktemp("dist")
    uv = Path(sys.executable).with_name("uv")
    run(uv, "build", "--quiet", "--build-constraints", LOCK, "--out-dir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def environment(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a clean environment with the wheel, its dependencies and PyPI's package `schema`."""
    folder = tmp_path_factory.mktemp("clean")
    run(sys.executable, "-m", "venv", folder, cwd=folder)
    [wheel] = dist.glob("*.whl")
    run(folder / "bin" / "pip", "install", "--quiet", wheel, "schema", cwd=folder)
    return folder / "bin"


@pytest.fixture
def working_directory(tmp_path: Path, catalogue: Path) -> Path:
    """A working directory with files that are named like our sub-packages."""
    (tmp_path / "search.py").write_text("raise SystemExit('the wrong search')\n")
    (tmp_path / "ingest").mkdir()
    (tmp_path / "ingest" / "__init__.py").write_text("raise SystemExit('the wrong ingest')\n")
    shutil.copytree(catalogue, tmp_path / "shop")
    return tmp_path


def test_the_wheel_contains_one_package(dist: Path) -> None:
    [wheel] = dist.glob("*.whl")
    names = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"lookalike"}


def test_the_wheel_works_next_to_files_with_our_names(environment: Path, working_directory: Path) -> None:
    lookalike = environment / "lookalike"
    assert "ingest" in run(lookalike, "--help", cwd=working_directory)
    ingest = (lookalike, "ingest", "shop/photos", "--layout", "{category}/{product_id}/{image}")
    assert "stored 192, rejected 0" in run(*ingest, cwd=working_directory)
    search = (lookalike, "search", "shop/queries/red-plain-mug.jpg", "--format", "ids", "--limit", 1)
    assert run(*search, cwd=working_directory) == "red-plain-mug\n"
    assert run(environment / "python", "-c", API, cwd=working_directory) == "red-plain-mug\n"
