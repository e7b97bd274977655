"""What is known of a network on this machine: which engine is faster, and the network as that engine has it."""

import dataclasses
import hashlib
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image

from lookalike.encode.preprocess import Preprocessing
from lookalike.encode.process_tuning import count_cores
from lookalike.schema.collection import Fingerprint

_LAYOUT = "3"
_TOLD = "engine.json"


@dataclass(frozen=True, slots=True)
class EngineRecord:
    """What was measured. `rates` are images a second by engine, `agreement` the least cosine between their vectors.

    `portion` is how many images at once ONNX Runtime is fastest with.
    `why_not` says why there is no ONNX of it, empty where there is.
    `preprocessing` is None where a model's own processor prepares images; that one comes with torch only.
    """

    engine: str
    rates: dict[str, float]
    portion: int
    agreement: float
    why_not: str
    fingerprint: Fingerprint
    preprocessing: Preprocessing | None
    words: bool

    def to_json(self) -> str:
        """Write it as JSON."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> "EngineRecord":
        """Read what to_json wrote. Raises ValueError, KeyError, TypeError for anything else."""
        told: dict[str, Any] = json.loads(text)
        prepared = told.pop("preprocessing")
        fingerprint = Fingerprint(**told.pop("fingerprint"))
        return cls(**told, fingerprint=fingerprint, preprocessing=prepared and _preprocessing(prepared))


class EngineCache:
    """Where that is kept for one network: its weights, this machine and the versions at work make up the name."""

    def __init__(self, weights: Iterable[Path]) -> None:
        """Look up its place. Raises OSError for weights that cannot be looked at, and without a home."""
        stamps = [(str(file.absolute()), file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(weights)]
        known = [
            _LAYOUT,
            stamps,
            version("torch"),
            version("onnxruntime"),
            platform.machine(),
            _processor(),
            count_cores(),
        ]
        digest = hashlib.blake2b(json.dumps(known).encode(), digest_size=12).hexdigest()
        self.folder = cache_folder() / "engines" / digest

    @property
    def network(self) -> Path:
        """The network as ONNX."""
        return self.folder / "network.onnx"

    def read(self) -> EngineRecord | None:
        """Tell what is kept; None when nothing is, or nothing that this version can read."""
        try:
            kept = EngineRecord.from_json((self.folder / _TOLD).read_text())
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return kept if kept.why_not or self.network.exists() else None

    def clear(self) -> None:
        """Keep it no longer."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def put(self, kept: EngineRecord, made: Path) -> None:
        """Keep what was measured, with the files in the folder `made`, which is moved. Raises OSError."""
        (made / _TOLD).write_text(kept.to_json())
        # Another process was faster: what it has found is as good, and may be in use.
        if self.read() is not None:
            return
        self.clear()
        try:
            made.rename(self.folder)
        except OSError:
            if self.read() is None:
                raise

    @contextmanager
    def new(self) -> Iterator[Path]:
        """Make a folder beside it, to be filled; what is not put is removed. Raises OSError."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{self.folder.name}-", dir=self.folder.parent))
        try:
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)


def cache_folder() -> Path:
    """Where things are kept that can be made again: LOOKALIKE_CACHE, or the user's cache. Raises OSError."""
    chosen = os.environ.get("LOOKALIKE_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    try:
        usual = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    except RuntimeError as error:  # a user without a home
        raise OSError(str(error)) from error
    return Path(os.environ.get("XDG_CACHE_HOME") or usual) / "lookalike"


def _preprocessing(told: dict[str, Any]) -> Preprocessing:
    told = {name: tuple(value) if isinstance(value, list) else value for name, value in told.items()}
    return Preprocessing(**{**told, "resample": Image.Resampling(told["resample"])})


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
