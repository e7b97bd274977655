"""Networks that ONNX Runtime runs: exported from torch once, and without torch from then on."""

import logging
import os
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from lookalike.encode.encoder import PreparingEncoder, TextEncoder
from lookalike.encode.preprocess import Pixels, Prepare
from lookalike.schema.collection import Fingerprint
from lookalike.schema.errors import EncoderUnavailable
from lookalike.schema.product import Vectors

# It would send what it runs, and on what, to its maker; it reads this when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

if TYPE_CHECKING:
    from lookalike.encode.backends.torch import TorchEncoder

_ERROR = 3


class Slice(NamedTuple):
    """What one batch gets of the processor: threads, and of its cache as much as so many images at once take."""

    threads: int
    portion: int


class OnnxEncoder(PreparingEncoder):
    """An encoder whose network ONNX Runtime runs on the CPU, a batch in portions.

    What two layers hand on for 16 images is more than the caches of a processor hold: a small network is a third
    faster with 2 at once, and takes half the memory. Raises EncoderUnavailable for a file that is no network.
    """

    def __init__(self, network: Path, prepare: Prepare, fingerprint: Fingerprint, part: Slice) -> None:
        super().__init__(prepare, fingerprint)
        self.portion = part.portion
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = part.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERROR
        try:
            self._session = onnxruntime.InferenceSession(str(network), options, providers=["CPUExecutionProvider"])
        # Its errors share no ancestor but Exception.
        except Exception as error:
            raise EncoderUnavailable(f"{network} cannot be used ({error}); remove it, and it is made again") from error

    def encode_images(self, batch: Pixels) -> Vectors:
        """Encode prepared images, stacked: (n, …) to float32 (n, dim) of unit length."""
        starts = range(0, len(batch), self.portion)
        return np.concatenate([self._forward(batch[start : start + self.portion]) for start in starts])

    def _forward(self, batch: Pixels) -> Vectors:
        vectors: Vectors = self._session.run(None, {"pixels": np.ascontiguousarray(batch)})[0]
        return vectors


class OnnxTextEncoder(OnnxEncoder):
    """The same for a model with a text tower, which torch runs: it is loaded with the first text."""

    def __init__(
        self,
        network: Path,
        prepare: Prepare,
        fingerprint: Fingerprint,
        part: Slice,
        load_words: Callable[[], TextEncoder],
    ) -> None:
        super().__init__(network, prepare, fingerprint, part)
        self._load_words = load_words
        self._words: TextEncoder | None = None
        self._loading = threading.Lock()

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Encode texts: float32 (n, dim) of unit length."""
        with self._loading:
            if self._words is None:
                self._words = self._load_words()
        return self._words.encode_texts(texts)


def export(encoder: "TorchEncoder", file: Path) -> None:
    """Write an encoder's network, from prepared images to unit vectors, as ONNX. Raises what torch raises."""
    import torch

    blank = np.stack([np.asarray(encoder.prepare(Image.new("RGB", (64, 64), "grey")))] * 2)
    # The exporter tells everything it meets, down to packages that are not there.
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                encoder.network,
                (torch.from_numpy(blank),),
                file,
                input_names=["pixels"],
                output_names=["vectors"],
                dynamic_shapes={"pixels": {0: torch.export.Dim.DYNAMIC}},
                dynamo=True,
                # In a file beside it that is mapped: parsed with the network, they would be in memory twice.
                external_data=True,
                verbose=False,
            )
    finally:
        logger.setLevel(level)
