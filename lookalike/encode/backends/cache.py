"""The cache of measurements: which engine runs a model faster on this machine, and the model exported to ONNX."""

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

_LAYOUT = "4"
_RECORD_FILE = "engine.json"


@dataclass(frozen=True, slots=True)
class EngineRecord:
    """What was measured of a model. `engine` is the faster one, onnx or torch.

    `images_per_second` is by engine. `lowest_cosine` is between the vectors of both engines. ONNX Runtime is fastest
    with chunks of `chunk_size` images. `export_error` says why there is no ONNX model; it is empty where there is one.
    `preprocessing` is None where a model's own processor prepares images; that one comes with torch only.
    """

    engine: str
    images_per_second: dict[str, float]
    chunk_size: int
    lowest_cosine: float
    export_error: str
    fingerprint: Fingerprint
    preprocessing: Preprocessing | None
    has_text: bool

    def to_json(self) -> str:
        """Write the record as JSON."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> "EngineRecord":
        """Read what to_json wrote. Raises ValueError, KeyError, TypeError for anything else."""
        values: dict[str, Any] = json.loads(text)
        preprocessing = values.pop("preprocessing")
        fingerprint = Fingerprint(**values.pop("fingerprint"))
        return cls(**values, fingerprint=fingerprint, preprocessing=preprocessing and _to_preprocessing(preprocessing))


class EngineCache:
    """The cache folder of one model; its name is a hash of the weights, this machine and the versions in use."""

    def __init__(self, weights: Iterable[Path]) -> None:
        """Compute the folder. Raises OSError for weights that cannot be looked at, and for a user without a home."""
        stamps = [(str(file.absolute()), file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(weights)]
        key = [
            _LAYOUT,
            stamps,
            version("torch"),
            version("onnxruntime"),
            platform.machine(),
            _processor(),
            count_cores(),
        ]
        digest = hashlib.blake2b(json.dumps(key).encode(), digest_size=12).hexdigest()
        self.folder = cache_folder() / "engines" / digest

    @property
    def model_file(self) -> Path:
        """The model as ONNX."""
        return self.folder / "model.onnx"

    def read(self) -> EngineRecord | None:
        """Return what was measured; None when nothing was, or nothing that this version can read."""
        try:
            record = EngineRecord.from_json((self.folder / _RECORD_FILE).read_text())
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return record if record.export_error or self.model_file.exists() else None

    def clear(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def write(self, record: EngineRecord, new_folder: Path) -> None:
        """Write a record into `new_folder`, with its model file, and make that the cache folder. Raises OSError."""
        (new_folder / _RECORD_FILE).write_text(record.to_json())
        # Another process was faster: its result is as good, and may be in use.
        if self.read() is not None:
            return
        self.clear()
        try:
            new_folder.rename(self.folder)
        except OSError:
            if self.read() is None:
                raise

    @contextmanager
    def new_folder(self) -> Iterator[Path]:
        """Create a folder to fill; it is deleted at the end, unless `write` has moved it. Raises OSError."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{self.folder.name}-", dir=self.folder.parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def cache_folder() -> Path:
    """Return the folder for caches: LOOKALIKE_CACHE, or one in the user's cache. Raises OSError."""
    chosen = os.environ.get("LOOKALIKE_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    try:
        usual = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    except RuntimeError as error:  # a user without a home
        raise OSError(str(error)) from error
    return Path(os.environ.get("XDG_CACHE_HOME") or usual) / "lookalike"


def _to_preprocessing(values: dict[str, Any]) -> Preprocessing:
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return Preprocessing(**{**values, "resample": Image.Resampling(values["resample"])})


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
