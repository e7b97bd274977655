"""Whether what is installed fits together: versions, names, imports, the GPU. Imports none of it in this process."""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata, util
from typing import Any

from lookalike.stack.finding import Finding

_LOADED = (
    "numpy",
    "PIL",
    "pyarrow",
    "onnxruntime",
    "torch",
    "torchvision",
    "transformers",
    "pymilvus",
    "milvus_lite",
    "fastapi",
)
_OPTIONAL = {"torchvision"}
_SECONDS = 120
# A library that is built for another crashes as often as it raises: what was begun last is to blame.
_TRY = """
import importlib, json, sys
for name in sys.argv[1:]:
    print(json.dumps([name, "it crashes"]), flush=True)
    try:
        importlib.import_module(name)
        print(json.dumps([name, ""]), flush=True)
    except BaseException as error:
        print(json.dumps([name, f"{type(error).__name__}: {error}"]), flush=True)
"""
_CUDA = "import torch; print(torch.__version__, torch.cuda.is_available())"


def python(_asked: Mapping[str, Any]) -> Iterator[Finding]:
    """Which Python, on what."""
    yield Finding("python", "ok", f"{platform.python_version()} at {sys.executable}, {platform.platform()}")


def packages(_asked: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether every package that lookalike requires is there, in a version that it takes."""
    from packaging.requirements import Requirement

    try:
        texts = metadata.requires("lookalike") or []
    except metadata.PackageNotFoundError:
        yield Finding(
            "packages", "warning", "lookalike is not installed, so nothing says what it requires", "make install"
        )
        return
    required = [wanted for wanted in map(Requirement, texts) if not wanted.marker or wanted.marker.evaluate()]
    wrong = [wanted for wanted in required if not wanted.specifier.contains(_version(wanted.name), prereleases=True)]
    for wanted in wrong:
        has = _version(wanted.name)
        found = f"{wanted.name} {has} is installed" if has else f"{wanted.name} is missing"
        yield Finding("packages", "problem", f"{found}; lookalike needs {wanted}", f"pip install '{wanted}'")
    if not wrong:
        told = ", ".join(f"{name} {_version(name)}" for name in ("torch", "transformers", "pymilvus", "milvus-lite"))
        yield Finding("packages", "ok", f"all {len(required)} as required: {told}")


def imports(_asked: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether the large libraries load, together, in a process of their own."""
    tried = [name for name in _LOADED if name not in _OPTIONAL or util.find_spec(name)]
    # pymilvus would take a path in MILVUS_URI for an address.
    output = _run([sys.executable, "-c", _TRY, *tried], MILVUS_URI="")
    said: dict[str, str] = dict(json.loads(line) for line in output.splitlines() if line.startswith("["))
    failed = {name: why for name, why in said.items() if why}
    for name, why in failed.items():
        yield Finding("imports", "problem", f"import {name}: {' '.join(why.split())[:300]}", _cure(name))
    if not failed:
        yield Finding("imports", "ok", f"loaded: {', '.join(said)}")


def gpu(_asked: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether torch uses the NVIDIA GPU that is there."""
    listed = _run(["nvidia-smi", "-L"]).strip() if shutil.which("nvidia-smi") else ""
    if "GPU" not in listed:
        yield Finding("gpu", "ok", "no NVIDIA GPU here")
        return
    card = listed.splitlines()[0].split(" (UUID")[0]
    version, usable = _run([sys.executable, "-c", _CUDA]).split()
    if usable == "True":
        yield Finding("gpu", "ok", f"{card}, used by torch {version}")
        return
    yield Finding(
        "gpu",
        "warning",
        f"{card} is not used: torch {version} finds no CUDA, so networks run on the CPU",
        "install a torch built for this driver: https://pytorch.org/get-started/locally/",
    )


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _cure(name: str) -> str:
    if name == "torchvision":
        return "nothing here needs it: pip uninstall torchvision, or install the one that belongs to this torch"
    return f"pip install --force-reinstall {'pillow' if name == 'PIL' else name.replace('_', '-')}"


def _run(command: list[str], **environment: str) -> str:
    done = subprocess.run(  # noqa: S603  our own commands
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    return done.stdout
