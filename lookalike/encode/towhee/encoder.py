"""Any Towhee operator that turns an image into a vector, as an encoder: `towhee:<namespace>/<operator>?name=value`.

The operator itself is called, image by image, and not a pipe: in a pipe, one bad image loses a whole call, and columns
are paired by position alone.
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

from lookalike.encode.encoder import BaseEncoder
from lookalike.encode.preprocess import Pixels
from lookalike.schema.collection import Fingerprint
from lookalike.schema.errors import EncoderUnavailable
from lookalike.schema.product import Vector, Vectors

_NAME = re.compile(r"towhee:([\w-]+)/([\w-]+)(?:\?(.+))?", re.ASCII)
_MAX_PIXELS = 512 * 512
_HEADER_BYTES = 8
"""Bytes before the pixels that hold the height and the width of the image."""


class _OperatorName(NamedTuple):
    """Which operator, and the arguments that it is created with."""

    namespace: str
    operator: str
    arguments: dict[str, str]

    @classmethod
    def parse(cls, name: str) -> "_OperatorName":
        """Parse an encoder's name. Raises EncoderUnavailable."""
        match = _NAME.fullmatch(name)
        if match is None:
            raise EncoderUnavailable(f"encoder {name!r} is not of the form towhee:<namespace>/<operator>?name=value")
        namespace, operator, arguments = match.groups(default="")
        # As Towhee spells folders and names in its registry.
        return cls(namespace.replace("_", "-"), operator.replace("_", "-"), dict(parse_qsl(arguments)))

    @property
    def full_name(self) -> str:
        """Namespace and operator."""
        return f"{self.namespace}/{self.operator}"

    @property
    def folder(self) -> Path:
        """Where Towhee looks for the operator's code."""
        home = Path(os.environ.get("TOWHEE_HOME", "~/.towhee")).expanduser()
        return home / "operators" / self.namespace / self.operator / "versions" / "main"


class TowheeEncoder(BaseEncoder):
    """An encoder that calls an operator with RGB images of at most 512×512 pixels, whatever their shape.

    An image that the operator fails on, or returns anything but one vector for, gets a vector of NaN: then that image
    alone is rejected. `on_message` gets a line about the first one. Raises EncoderUnavailable when a test image does
    not become a vector.
    """

    def __init__(
        self, name: str, operator: Callable[[Any], Any], code_hash: str, on_message: Callable[[str], object]
    ) -> None:
        self._name, self._operator, self._on_message = name, operator, on_message
        self._has_warned = False
        # An operator may not be safe to call from several threads.
        self._call_lock = threading.Lock()
        try:
            dim = len(_to_vector(operator(_to_towhee_image(_test_image()))))
        # An operator may raise any error.
        except Exception as error:
            raise EncoderUnavailable(f"{name}: a test image does not become a vector: {_first_line(error)}") from error
        description = f"at most {_MAX_PIXELS} pixels, RGB"
        super().__init__(_pack, Fingerprint(name, code_hash, dim, "Towhee operator", description))

    def encode_images(self, batch: Pixels) -> Vectors:
        """Encode packed images, (n, 786440) to float32 (n, dim) of unit length, NaN where the operator fails."""
        return np.stack([self._encode(_unpack(packed)) for packed in batch])

    def _encode(self, image: Pixels) -> Vector:
        try:
            with self._call_lock:
                vector = _to_vector(self._operator(_to_towhee_image(image)))
            if len(vector) != self.dim:
                raise ValueError(f"a vector of {len(vector)} numbers instead of {self.dim}")
        # An operator may raise any error, and one image must not stop a run.
        except Exception as error:  # noqa: BLE001
            self._warn_once(error)
            return np.full(self.dim, np.nan, dtype=np.float32)
        # Zeros have no direction, and neither has infinity: both become NaN.
        with np.errstate(all="ignore"):
            unit: Vector = vector / np.linalg.norm(vector)
        return unit

    def _warn_once(self, error: Exception) -> None:
        if not self._has_warned:
            self._has_warned = True
            self._on_message(f"{self._name} fails on an image, which is rejected: {_first_line(error)}")


def load_towhee(name: str, on_message: Callable[[str], object]) -> TowheeEncoder:
    """Load an operator that is registered, or in the folder of Towhee's operators. Raises EncoderUnavailable."""
    parsed = _OperatorName.parse(name)
    try:
        with _quiet_import():
            from towhee import ops
            from towhee.runtime.operator_manager import OperatorRegistry
    except ModuleNotFoundError as error:
        raise EncoderUnavailable(f"{name} needs Towhee ({error}): pip install 'lookalike[towhee]'") from error
    # A function is registered twice: as itself, and as a class that Towhee has made of it.
    registered = OperatorRegistry.resolve(f"{parsed.full_name}_func") or OperatorRegistry.resolve(parsed.full_name)
    if registered is None and not parsed.folder.is_dir():
        # Towhee would download it from its hub, and install what that names.
        raise EncoderUnavailable(
            f"{name}: no operator {parsed.full_name!r} is registered, and there is no {parsed.folder}; "
            "put the operator there"
        )
    # Towhee looks operators up as attributes: ops.<namespace>.<operator>.
    created = getattr(getattr(ops, parsed.namespace), parsed.operator)(**parsed.arguments)
    try:
        operator = created.get_op()
    except RuntimeError as error:
        raise EncoderUnavailable(f"{name} cannot be loaded: {_first_line(error)}") from error
    return TowheeEncoder(name, operator, _hash_code(registered, parsed), on_message)


@contextmanager
def _quiet_import() -> Iterator[None]:
    """Import Towhee without its deprecation warnings, and without the log handler that it adds to the root logger."""
    root = logging.getLogger()
    before = list(root.handlers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    root.handlers[:] = before


def _hash_code(registered: Any, name: _OperatorName) -> str:
    """Hash what defines an operator: its source or its files, and its arguments."""
    digest = hashlib.sha256(repr(sorted(name.arguments.items())).encode())
    if registered is not None:
        digest.update(_source(registered).encode())
        return digest.hexdigest()[:16]
    for file in sorted(name.folder.rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts:
            digest.update(str(file.relative_to(name.folder)).encode())
            with file.open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()[:16]


def _source(registered: Any) -> str:
    try:
        return inspect.getsource(registered)
    except (OSError, TypeError):  # defined in a shell, or generated
        return f"{registered.__module__}.{registered.__qualname__}"


def _to_vector(output: Any) -> Vector:
    """Convert what an operator returns, (dim,) or (1, dim), to float32 (dim,). Raises ValueError."""
    vector = np.asarray(output, dtype=np.float32)
    if vector.ndim == 2 and len(vector) == 1:
        vector = vector[0]
    if vector.ndim != 1 or not vector.size:
        raise ValueError(f"an array of shape {vector.shape} instead of one vector")
    return vector


def _to_towhee_image(image: Pixels) -> Any:
    from towhee.types import Image as TowheeImage

    return TowheeImage(image, "RGB")


def _pack(image: Image.Image) -> Pixels:
    """Shrink one RGB image and pack it with its size, so that images of all shapes stack: uint8 (786440,)."""
    factor = (_MAX_PIXELS / (image.width * image.height)) ** 0.5
    if factor < 1:
        width = min(_MAX_PIXELS, max(1, int(image.width * factor)))
        size = width, max(1, min(_MAX_PIXELS // width, int(image.height * factor)))
        image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    packed = np.zeros(_HEADER_BYTES + _MAX_PIXELS * 3, dtype=np.uint8)
    packed[:_HEADER_BYTES] = np.array([image.height, image.width], dtype=np.uint32).view(np.uint8)
    packed[_HEADER_BYTES : _HEADER_BYTES + image.height * image.width * 3] = np.asarray(image).ravel()
    return packed


def _unpack(packed: Pixels) -> Pixels:
    height, width = (int(number) for number in packed[:_HEADER_BYTES].view(np.uint32))
    return packed[_HEADER_BYTES : _HEADER_BYTES + height * width * 3].reshape(height, width, 3)


def _test_image() -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (256, 320, 3), dtype=np.uint8)


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:200]}" if text else type(error).__name__
