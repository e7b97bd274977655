"""Checks of the installed packages: versions, imports, the GPU. Heavy libraries load in a separate process."""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata, util

from lookalike.stack.finding import Finding
from lookalike.stack.options import DoctorOptions

_LIBRARIES = (
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
_TIMEOUT_SECONDS = 120
# An incompatible library can crash the process instead of raising. So each name is printed before its import: the last
# one printed is the one that crashed.
_IMPORT_SCRIPT = """
import importlib, json, sys
for name in sys.argv[1:]:
    print(json.dumps([name, "it crashes"]), flush=True)
    try:
        importlib.import_module(name)
        print(json.dumps([name, ""]), flush=True)
    except BaseException as error:
        print(json.dumps([name, f"{type(error).__name__}: {error}"]), flush=True)
"""
_CUDA_SCRIPT = "import torch; print(torch.__version__, torch.cuda.is_available())"


def check_python(_options: DoctorOptions) -> Iterator[Finding]:
    """Report the Python version and the platform."""
    yield Finding("python", "ok", f"{platform.python_version()} at {sys.executable}, {platform.platform()}")


def check_packages(_options: DoctorOptions) -> Iterator[Finding]:
    """Check that every required package is installed, in a version that lookalike accepts."""
    from packaging.requirements import Requirement

    try:
        lines = metadata.requires("lookalike") or []
    except metadata.PackageNotFoundError:
        yield Finding(
            "packages", "warning", "lookalike is not installed, so its requirements are unknown", "make install"
        )
        return
    required = [package for package in map(Requirement, lines) if not package.marker or package.marker.evaluate()]
    misfits = [each for each in required if not each.specifier.contains(_version(each.name), prereleases=True)]
    for package in misfits:
        installed = _version(package.name)
        state = f"{package.name} {installed} is installed" if installed else f"{package.name} is missing"
        yield Finding("packages", "problem", f"{state}; lookalike needs {package}", f"pip install '{package}'")
    if not misfits:
        main = ", ".join(f"{name} {_version(name)}" for name in ("torch", "transformers", "pymilvus", "milvus-lite"))
        yield Finding("packages", "ok", f"all {len(required)} as required: {main}")


def check_imports(_options: DoctorOptions) -> Iterator[Finding]:
    """Import the heavy libraries together, in a separate process."""
    names = [name for name in _LIBRARIES if name not in _OPTIONAL or util.find_spec(name)]
    # pymilvus reads MILVUS_URI at import and fails if it is a path.
    output = _run([sys.executable, "-c", _IMPORT_SCRIPT, *names], MILVUS_URI="")
    errors: dict[str, str] = dict(json.loads(line) for line in output.splitlines() if line.startswith("["))
    failed = {name: error for name, error in errors.items() if error}
    for name, error in failed.items():
        yield Finding("imports", "problem", f"import {name}: {' '.join(error.split())[:300]}", _suggest_fix(name))
    if not failed:
        yield Finding("imports", "ok", f"loaded: {', '.join(errors)}")


def check_gpu(_options: DoctorOptions) -> Iterator[Finding]:
    """Check that torch can use the NVIDIA GPU, if there is one."""
    listing = _run(["nvidia-smi", "-L"]).strip() if shutil.which("nvidia-smi") else ""
    if "GPU" not in listing:
        yield Finding("gpu", "ok", "no NVIDIA GPU here")
        return
    card = listing.splitlines()[0].split(" (UUID")[0]
    version, has_cuda = _run([sys.executable, "-c", _CUDA_SCRIPT]).split()
    if has_cuda == "True":
        yield Finding("gpu", "ok", f"{card}, used by torch {version}")
        return
    yield Finding(
        "gpu",
        "warning",
        f"{card} is not used: torch {version} has no CUDA, so encoders run on the CPU",
        "install a torch built for this driver: https://pytorch.org/get-started/locally/",
    )


def _version(package: str) -> str:
    """The installed version, empty if the package is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _suggest_fix(library: str) -> str:
    if library == "torchvision":
        return "lookalike does not need it: pip uninstall torchvision, or install the version that matches torch"
    return f"pip install --force-reinstall {'pillow' if library == 'PIL' else library.replace('_', '-')}"


def _run(command: list[str], **environment: str) -> str:
    """Run a command; return its standard output, also if it failed."""
    done = subprocess.run(  # noqa: S603  our own commands
        command,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_SECONDS,
        check=False,
    )
    return done.stdout
