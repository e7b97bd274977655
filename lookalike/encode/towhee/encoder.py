"""Any Towhee operator that makes a vector of an image, as an encoder: `towhee:<namespace>/<operator>?name=value`.

The operator is called itself, image by image, and not in a pipe: there one bad image loses a whole call, and
columns are paired by place alone.
"""

import hashlib
import inspect
import logging
import os
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import numpy as np
from PIL import Image

from lookalike.encode.encoder import PreparingEncoder
from lookalike.encode.preprocess import Pixels
from lookalike.schema.collection import Fingerprint
from lookalike.schema.errors import EncoderUnavailable
from lookalike.schema.product import Vector, Vectors

_NAME = re.compile(r"towhee:([\w-]+)/([\w-]+)(?:\?(.+))?", re.ASCII)
_MOST = 512 * 512
_HEAD = 8
"""Bytes before the pixels that say how high and how wide the image is."""


class _Wanted(NamedTuple):
    """Which operator, and what it is made with."""

    namespace: str
    operator: str
    arguments: dict[str, str]

    @classmethod
    def read(cls, name: str) -> "_Wanted":
        """Read an encoder's name. Raises EncoderUnavailable."""
        found = _NAME.fullmatch(name)
        if found is None:
            raise EncoderUnavailable(f"encoder {name!r} is not of the form towhee:<namespace>/<operator>?name=value")
        namespace, operator, arguments = found.groups(default="")
        # As Towhee spells folders and names in its registry.
        return cls(namespace.replace("_", "-"), operator.replace("_", "-"), dict(parse_qsl(arguments)))

    @property
    def full_name(self) -> str:
        """Namespace and operator."""
        return f"{self.namespace}/{self.operator}"


class TowheeEncoder(PreparingEncoder):
    """An encoder that calls an operator with RGB images of at most 512×512 pixels, whatever their shape.

    An image that the operator fails on, or that it gives anything but one vector for, gets a vector of NaN, which is
    rejected for that image alone; `tell` is told of the first one. Raises EncoderUnavailable when a drawn image
    does not become a vector.
    """

    def __init__(self, name: str, operator: Callable[[Any], Any], code: str, tell: Callable[[str], object]) -> None:
        self._name, self._operator, self._tell = name, operator, tell
        self._told = False
        # Nobody says of an operator that it may be called from several threads.
        self._calling = threading.Lock()
        try:
            dim = len(_one_vector(operator(_as_towhee(_drawn()))))
        # An operator raises what it likes.
        except Exception as error:
            raise EncoderUnavailable(f"{name}: a drawn image does not become a vector: {_line(error)}") from error
        super().__init__(_packed, Fingerprint(name, code, dim, "Towhee operator", f"at most {_MOST} pixels, RGB"))

    def encode_images(self, batch: Pixels) -> Vectors:
        """Encode packed images, (n, 786440) to float32 (n, dim) of unit length, NaN where the operator fails."""
        return np.stack([self._vector(_unpacked(packed)) for packed in batch])

    def _vector(self, image: Pixels) -> Vector:
        try:
            with self._calling:
                vector = _one_vector(self._operator(_as_towhee(image)))
            if len(vector) != self.dim:
                raise ValueError(f"a vector of {len(vector)} numbers, and before of {self.dim}")
        # An operator raises what it likes, and one image is no reason to stop.
        except Exception as error:  # noqa: BLE001
            self._warn(error)
            return np.full(self.dim, np.nan, dtype=np.float32)
        # A vector of zeros has no direction, one with infinity neither: both come out as NaN.
        with np.errstate(all="ignore"):
            unit: Vector = vector / np.linalg.norm(vector)
        return unit

    def _warn(self, error: Exception) -> None:
        if not self._told:
            self._told = True
            self._tell(f"{self._name} fails on an image, which is rejected, and maybe on more: {_line(error)}")


def load_towhee(name: str, tell: Callable[[str], object]) -> TowheeEncoder:
    """Load an operator that is registered, or in the folder of Towhee's operators. Raises EncoderUnavailable."""
    wanted = _Wanted.read(name)
    try:
        with _quietly():
            from towhee import ops
            from towhee.runtime.operator_manager import OperatorRegistry
    except ModuleNotFoundError as error:
        raise EncoderUnavailable(f"{name} needs Towhee ({error}): pip install 'lookalike[towhee]'") from error
    # What was registered as a function is there twice, once as a class that Towhee has made of it.
    kind = OperatorRegistry.resolve(f"{wanted.full_name}_func") or OperatorRegistry.resolve(wanted.full_name)
    folder = _folder(wanted)
    if kind is None and not folder.is_dir():
        # Towhee would ask its hub, and install what that says.
        raise EncoderUnavailable(
            f"{name}: no operator {wanted.full_name!r} is registered, and there is no {folder}; put the operator there"
        )
    made = getattr(getattr(ops, wanted.namespace), wanted.operator)(**wanted.arguments)
    try:
        operator = made.get_op()
    except RuntimeError as error:
        raise EncoderUnavailable(f"{name} cannot be loaded: {_line(error)}") from error
    return TowheeEncoder(name, operator, _code(kind, folder, wanted.arguments), tell)


@contextmanager
def _quietly() -> Iterator[None]:
    """Import Towhee without its warnings of what it is built on, and its handler that prints the logs of everybody."""
    root = logging.getLogger()
    before = list(root.handlers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    root.handlers[:] = before


def _folder(wanted: _Wanted) -> Path:
    home = Path(os.environ.get("TOWHEE_HOME", "~/.towhee")).expanduser()
    return home / "operators" / wanted.namespace / wanted.operator / "versions" / "main"


def _code(kind: Any, folder: Path, arguments: dict[str, str]) -> str:
    """Hash what an operator is made of: its files or its source, and its arguments."""
    digest = hashlib.sha256(repr(sorted(arguments.items())).encode())
    if kind is not None:
        digest.update(_source(kind).encode())
        return digest.hexdigest()[:16]
    for file in sorted(folder.rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts:
            digest.update(str(file.relative_to(folder)).encode())
            with file.open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()[:16]


def _source(kind: Any) -> str:
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):  # typed in, or made on the fly
        return f"{kind.__module__}.{kind.__qualname__}"


def _one_vector(output: Any) -> Vector:
    """Take what an operator gives, (dim,) or (1, dim), as float32. Raises ValueError."""
    vector = np.asarray(output, dtype=np.float32)
    if vector.ndim == 2 and len(vector) == 1:
        vector = vector[0]
    if vector.ndim != 1 or not vector.size:
        raise ValueError(f"an array of shape {vector.shape} instead of one vector")
    return vector


def _as_towhee(image: Pixels) -> Any:
    from towhee.types import Image as TowheeImage

    return TowheeImage(image, "RGB")


def _packed(image: Image.Image) -> Pixels:
    """Shrink one RGB image and pack it with its size, so that images of all shapes stack: uint8 (786440,)."""
    factor = (_MOST / (image.width * image.height)) ** 0.5
    if factor < 1:
        across = min(_MOST, max(1, int(image.width * factor)))
        size = across, max(1, min(_MOST // across, int(image.height * factor)))
        image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    packed = np.zeros(_HEAD + _MOST * 3, dtype=np.uint8)
    packed[:_HEAD] = np.array([image.height, image.width], dtype=np.uint32).view(np.uint8)
    packed[_HEAD : _HEAD + image.height * image.width * 3] = np.asarray(image).ravel()
    return packed


def _unpacked(packed: Pixels) -> Pixels:
    height, width = (int(number) for number in packed[:_HEAD].view(np.uint32))
    return packed[_HEAD : _HEAD + height * width * 3].reshape(height, width, 3)


def _drawn() -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (256, 320, 3), dtype=np.uint8)


def _line(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:200]}" if text else type(error).__name__
